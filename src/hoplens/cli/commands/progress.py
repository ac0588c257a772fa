"""The bar that `hoplens sweep` and `hoplens reproduce` show while networks are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from hoplens.studies.sweeps.running import GRACE, Progress
from hoplens.studies.sweeps.status import clock
from hoplens.text import printable

STOPPING = f"stopping: running batches have {GRACE:g} s to finish and be kept; Ctrl-C once more stops at once"


@contextmanager
def progress_bar(console: Console, title: str, *, stopped: str) -> Iterator[Callable[[Progress], None]]:
    """Show a bar with rate and time left, then the best method seen; on Ctrl-C say what to do next.

    Yields what is to be called with every `hoplens.sweeps.Progress`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    try:
        with Bar(*columns, console=console) as bar:
            row = bar.add_task(escape(title), total=None, rate="")
            best, told = "", False

            def show(seen: Progress) -> None:
                nonlocal best, told
                name = f"{title}: {seen.stage}" if seen.stage else title
                rate = _rate(seen)
                if seen.stopping and not told:
                    told = True
                    console.print(STOPPING, soft_wrap=True, markup=False, highlight=False)
                bar.update(row, description=escape(name), completed=seen.done, total=seen.total, rate=rate)
                if seen.best is not None:
                    b = seen.best
                    names = printable(b.method), printable(b.task)
                    best = f"best so far: {names[0]} {b.strength:g} on {names[1]}: error {b.test_error:.4f}"
                    best += f" ({b.lost} diverged)" if b.lost else ""

            yield show
        if best:
            console.print(best, soft_wrap=True, markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print(f"\n{stopped}", soft_wrap=True, markup=False, highlight=False)
        raise


def _rate(seen: Progress) -> str:
    words = [f"{seen.rate:.2g}/s"] if seen.rate else []
    words += [f"{clock(seen.left)} left"] if seen.left is not None else []
    words += [f"{seen.failed} failed"] if seen.failed else []
    return ", ".join(words)


__all__ = ["progress_bar"]
