"""What ``hoplens sweep`` says after a study or a search."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.studies.sweeps.store import RunStore
from hoplens.text import printable

SOME_FAILED = 1  # exit code


def stopped(folder: Path) -> str:
    """Return what is to be said after Ctrl-C."""
    again = f"`hoplens sweep --resume --store {folder}`"
    return f"stopped; every finished shard is kept. {again} goes on from there."


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
    first = printable(failures["reason"].iloc[0])
    console.print(
        f"{len(failures)} shards failed, the first: {first}; --resume tries them again, "
        "sweep.log in the store says more",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return SOME_FAILED


__all__ = ["SOME_FAILED", "close", "say_failures", "stopped"]
