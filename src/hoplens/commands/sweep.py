"""``hoplens sweep``: run a study into a store, go on with one, or say what it would take."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from hoplens.errors import FileError, ParameterError, check_count
from hoplens.sweeps import executors
from hoplens.sweeps.config import Study, load_study
from hoplens.sweeps.estimate import Estimate, estimate
from hoplens.sweeps.plan import Plan
from hoplens.sweeps.running import Progress, run_sweep
from hoplens.sweeps.status import clock
from hoplens.sweeps.store import DATABASE, RunStore, open_store

SOME_FAILED = 1  # exit code


def example() -> str:
    """Return the commented example of a study."""
    return resources.files("hoplens.sweeps").joinpath("example.toml").read_text(encoding="utf-8")


def run_sweep_command(
    console: Console,
    file: Path | None,
    *,
    store: Path | None,
    resume: bool,
    dry_run: bool,
    executor: str | None,
    workers: int | None,
    attempts: int,
) -> int:
    """Run, resume or estimate a study; return the exit code."""
    if workers is not None:
        check_count("--workers", workers)
    plan, folder = _find(file, store, resume=resume)
    if dry_run:
        print_estimate(console, plan, folder, workers=workers or executors.cores())
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # failures are printed below
            found = sweep_with_bar(
                console, plan, folder, executor=executor, workers=workers, attempts=attempts
            )
    except KeyboardInterrupt:
        console.print(
            f"\nstopped; every finished shard is kept. `hoplens sweep --resume --store {folder}` goes on "
            "from there.",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        raise
    with found:
        return _close(console, found, plan)


def _find(file: Path | None, store: Path | None, *, resume: bool) -> tuple[Plan, Path]:
    """Return the plan to run and the store to run it into."""
    if file is not None:
        study = load_study(file)
        folder = store or Path(f"{study.name}.store")
        if resume and not (folder / DATABASE).is_file():
            raise FileError(f"{folder} holds no run store to go on with; leave --resume out to begin one")
        return study.plan(), folder
    if not resume:
        raise ParameterError(
            "give a study file, or --resume --store DIR; `hoplens sweep --example` prints one"
        )
    if store is None:
        raise ParameterError("--resume without a study file needs --store DIR")
    with open_store(store) as found:
        source = found.source()
    if not source:
        raise ParameterError(f"the study in {store} was made in Python; go on with run_sweep from there")
    return Study.model_validate_json(source).plan(), store


def sweep_with_bar(
    console: Console, plan: Plan, folder: Path, *, executor: str | None, workers: int | None, attempts: int
) -> RunStore:
    """Run a plan under a progress bar with rate, time left and the best so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Bar(*columns, console=console) as bar:
        row = bar.add_task(escape(plan.name), total=len(plan.by_key), rate="")
        best = bar.add_task("", total=None, visible=False, rate="")

        def show(seen: Progress) -> None:
            bar.update(row, completed=seen.done, total=seen.total, rate=_rate(seen))
            if seen.best is not None:
                b = seen.best
                text = f"best so far: {b.method} {b.strength:g} on {b.task}: error {b.test_mse:.4f}"
                bar.update(best, description=escape(text))

        found = run_sweep(plan, folder, executor=executor, workers=workers, attempts=attempts, progress=show)
    if not console.is_terminal:
        console.print(bar.tasks[1].description)
    return found


def _rate(seen: Progress) -> str:
    words = [f"{seen.rate:.2g}/s"] if seen.rate else []
    words += [f"{clock(seen.left)} left"] if seen.left is not None else []
    words += [f"{seen.failed} failed"] if seen.failed else []
    return ", ".join(words)


def _close(console: Console, store: RunStore, plan: Plan) -> int:
    """Say what there is now; return the exit code."""
    failures = store.failures(plan.id)
    done = len(store.networks(plan.id).drop_duplicates("key"))
    console.print(
        f"{done} of {len(plan.by_key)} networks are in {store.folder}; `hoplens status` shows them",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
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


def print_estimate(console: Console, plan: Plan, folder: Path, *, workers: int) -> Estimate:
    """Print what is left to do of a plan."""
    known: set[str] = set()
    if (folder / DATABASE).is_file():
        with open_store(folder) as store:
            known = set(store.query("SELECT key FROM networks")["key"]) & set(plan.by_key)
    found = estimate(plan, plan.shards(known, workers=workers), workers=workers)
    lines = [
        f"{plan.name}: {found.networks} networks, {found.known} of them in {folder}",
        f"to train: {found.networks - found.known} in {found.shards} batches of up to {found.largest}",
    ]
    if found.networks > found.known:
        time = "unknown" if found.seconds is None else clock(found.seconds)
        lines += [
            f"time: about {time} of training on {workers} processes, by a short trial of each setting; "
            "measuring adds some percent",
            f"memory: about {found.bytes / 2**30:.1f} GiB in all",
        ]
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return found


__all__ = ["example", "print_estimate", "run_sweep_command", "sweep_with_bar"]
