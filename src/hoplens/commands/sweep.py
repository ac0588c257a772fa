"""``hoplens sweep``: run a study into a store, go on with one, or say what it would take."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path

from rich.console import Console

from hoplens.commands.progress import progress_bar
from hoplens.errors import FileError, ParameterError, check_count
from hoplens.study.plan import study_text
from hoplens.sweeps import executors
from hoplens.sweeps.config import Study, load_study
from hoplens.sweeps.estimate import Estimate, estimate
from hoplens.sweeps.plan import Plan
from hoplens.sweeps.running import run_sweep
from hoplens.sweeps.status import clock
from hoplens.sweeps.store import DATABASE, RunStore, open_store

SOME_FAILED = 1  # exit code


def example(name: str | None = None) -> str:
    """Return the commented example of a study, or a study of the package.

    Parameters
    ----------
    name : {"paper", "paper-quick"}, optional
        What `hoplens reproduce` runs, whole or ``--quick``.
    """
    if name is not None:
        return study_text(name)
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
    stopped = (
        f"stopped; every finished shard is kept. `hoplens sweep --resume --store {folder}` goes on from "
        "there."
    )
    with progress_bar(console, plan.name, stopped=stopped) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # failures are printed below
        found = run_sweep(plan, folder, executor=executor, workers=workers, attempts=attempts, progress=show)
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


__all__ = ["example", "print_estimate", "run_sweep_command"]
