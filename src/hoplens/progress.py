"""How long work tells how far it is: a bar, a function of one's own, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hoplens.errors import ParameterError

Progress = bool | Callable[[int, int], Any] | None


@contextmanager
def reporting(progress: Progress, label: str) -> Iterator[Callable[[int, int], Any] | None]:
    """Give what is to be called as ``call(done, total)`` now and then, or None.

    True makes a bar on the terminal's error stream, gone at the end; a function is handed on.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            row = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(row, completed=done, total=total)
    elif callable(progress):
        yield progress
    else:
        raise ParameterError(f"progress must be True, False or a function (done, total), got {progress!r}")


__all__ = ["Progress", "reporting"]
