"""``hoplens sweep --search``: search strengths and training settings, and say what was best."""

from __future__ import annotations

import warnings
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoplens.cli.commands.progress import progress_bar
from hoplens.cli.commands.sweep_parts import close, say_failures, stopped
from hoplens.studies.sweeps import executors, searching
from hoplens.studies.sweeps.searching import Search, search_estimate, trial_table
from hoplens.studies.sweeps.store import RunStore
from hoplens.text import printable

SEARCHED = ("strength", "hidden", "steps", "batch", "lr", "decay", "clip", "leak", "cell")


def run_search(
    console: Console,
    whole: Search,
    folder: Path,
    *,
    dry_run: bool,
    seconds: float | None,
    executor: str | None,
    workers: int | None,
    attempts: int,
) -> int:
    """Search, and print the best found; return the exit code."""
    if dry_run:
        lines = search_estimate(whole, workers=workers or executors.cores())
        console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
        return 0
    with progress_bar(console, whole.name, stopped=stopped(folder)) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # failures are printed below
        found, trials, best = searching.run_search(
            whole,
            folder,
            seconds=seconds,
            executor=executor,
            workers=workers,
            attempts=attempts,
            progress=show,
        )
    with found:
        console.print(_best(found, trials))
        failed = close(console, found, best)
        return max(failed, say_failures(console, found, trials))


def _best(store: RunStore, search: str) -> Table:
    trials = trial_table(store, search)
    searched = [name for name in SEARCHED if trials[name].nunique() > 1]
    shown = Table(title="Best found, by the mean error over the validation seeds", title_justify="left")
    for heading in ("task", "method"):
        shown.add_column(heading)
    for heading in (*searched, "test error", "trials"):
        shown.add_column(heading, justify="right")
    for (task, method), rows in trials.groupby(["task", "method"], sort=False):
        if rows["test_error"].notna().any():
            best = rows.sort_values("test_error", kind="stable").iloc[0]
            cells = [_word(best[name]) for name in (*searched, "test_error")]
            shown.add_row(escape(printable(task)), escape(printable(method)), *cells, str(len(rows)))
    return shown


def _word(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(printable(value))


__all__ = ["run_search"]
