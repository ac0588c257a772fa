"""``hoplens status``: how far a store is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoplens.studies.sweeps.status import Status, clock, status
from hoplens.studies.sweeps.store import open_store
from hoplens.text import printable

SHOWN = 5  # failures


def run_status(console: Console, folder: Path, *, study: str | None, table: Path | None) -> None:
    """Print how far a study is and the best method of each task so far; write its table."""
    found = status(folder, study)
    console.print("\n".join(_lines(found)), soft_wrap=True, markup=False, highlight=False)
    if len(found.best):
        shown = Table(title="Best so far, over the validation seeds that are there", title_justify="left")
        for heading in ("task", "method"):
            shown.add_column(heading)
        for heading in ("strength", "error", "seeds"):
            shown.add_column(heading, justify="right")
        for row in found.best.to_dict("records"):
            error = f"{row['test_error']:.4f}" if row["lost"] < row["seeds"] else "none"
            seeds = f"{row['seeds']}, {row['lost']} diverged" if row["lost"] else str(row["seeds"])
            names = (escape(printable(row[name])) for name in ("task", "method"))
            shown.add_row(*names, f"{row['strength']:g}", error, seeds)
        console.print(shown)
    if table is not None:
        with open_store(folder) as store:
            written = store.export(table, study)
        console.print(f"table: {written}", soft_wrap=True, markup=False, highlight=False)


def _lines(found: Status) -> list[str]:
    share = found.done / found.total
    state = "running" if found.running else ("done" if found.done == found.total else "not running")
    lines = [
        f"{printable(found.name)} (study {printable(found.study)}): "
        f"{found.done} of {found.total} networks ({share:.0%}), {state}",
        f"shards left: {found.open}, failed: {found.failed}; driver: {found.driver}",
    ]
    if found.rate is not None:
        left = f", about {clock(found.left)} left" if found.left is not None else ""
        lines.append(f"{found.rate:.3g} networks a second over the last shards{left}")
    for row in found.failures.head(SHOWN).to_dict("records"):
        lines.append(
            f"shard {row['position']} of {row['networks']} networks failed: {printable(row['reason'])}"
        )
    if len(found.failures) > SHOWN:
        lines.append(f"... and {len(found.failures) - SHOWN} more")
    if not found.running and found.done < found.total:
        lines.append("`hoplens sweep --resume --store` with this folder goes on")
    return lines


__all__ = ["run_status"]
