"""What ``hoplens sweep`` shows while a study or a search runs, and after it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from hoplens.sweeps.running import Progress
from hoplens.sweeps.status import clock
from hoplens.sweeps.store import RunStore

SOME_FAILED = 1  # exit code


class ProgressBar:
    """A progress bar with rate, time left and the best so far."""

    def __init__(self, console: Console, name: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("networks"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self.bar = Bar(*columns, console=console)
        self.row = self.bar.add_task(escape(name), total=None, rate="")
        self.best = self.bar.add_task("", total=None, visible=False, rate="")

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
        if error[0] is None and not self.bar.console.is_terminal:
            self.bar.console.print(self.bar.tasks[1].description)

    def show(self, seen: Progress) -> None:
        """Draw how far it is."""
        self.bar.update(self.row, completed=seen.done, total=seen.total, rate=_rate(seen))
        if seen.best is not None:
            b = seen.best
            text = f"best so far: {b.method} {b.strength:g} on {b.task}: error {b.test_mse:.4f}"
            self.bar.update(self.best, description=escape(text))


def _rate(seen: Progress) -> str:
    words = [f"{seen.rate:.2g}/s"] if seen.rate else []
    words += [f"{clock(seen.left)} left"] if seen.left is not None else []
    words += [f"{seen.failed} failed"] if seen.failed else []
    return ", ".join(words)


def say_how_to_go_on(console: Console, folder: Path) -> None:
    """Say what Ctrl-C has left."""
    console.print(
        f"\nstopped; every finished shard is kept. `hoplens sweep --resume --store {folder}` goes on "
        "from there.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def close(console: Console, store: RunStore, study: str) -> int:
    """Say what there is now of a study; return the exit code."""
    counts = store.query("SELECT count(DISTINCT key) AS n FROM members WHERE study = ?", [study])
    total = int(counts["n"].iloc[0])
    done = store.networks(study)["key"].nunique()
    console.print(
        f"{done} of {total} networks are in {store.folder}; `hoplens status` shows them",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return say_failures(console, store, study)


def say_failures(console: Console, store: RunStore, study: str) -> int:
    """Say which shards of a study failed, if any; return the exit code."""
    failures = store.failures(study)
    if failures.empty:
        return 0
    console.print(
        f"{len(failures)} shards failed, the first: {failures['reason'].iloc[0]}; --resume tries them again, "
        "sweep.log in the store says more",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return SOME_FAILED


__all__ = ["SOME_FAILED", "ProgressBar", "close", "say_failures", "say_how_to_go_on"]
