"""``hoplens sweep``: run a study into a store, go on with one, or say what it would take."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path

from rich.console import Console

from hoplens.cli.commands.progress import progress_bar
from hoplens.cli.commands.search import run_search
from hoplens.cli.commands.stored import ASK, read_stored, show_code
from hoplens.cli.commands.sweep_parts import close, stopped
from hoplens.errors import FileError, ParameterError, check_count
from hoplens.files import usable_path
from hoplens.studies.paper.plan import study_text
from hoplens.studies.sweeps import executors
from hoplens.studies.sweeps.config import Study, load_study
from hoplens.studies.sweeps.estimate import Estimate, estimate
from hoplens.studies.sweeps.limits import check_memory
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import run_sweep
from hoplens.studies.sweeps.searching import Search
from hoplens.studies.sweeps.status import clock
from hoplens.studies.sweeps.store import open_store
from hoplens.studies.sweeps.storefiles import holds_store


def example(name: str | None = None) -> str:
    """Return the commented example of a study, or a study of the package.

    Parameters
    ----------
    name : {"paper", "paper-quick"}, optional
        What `hoplens reproduce` runs, whole or ``--quick``.
    """
    if name is not None:
        return study_text(name)
    return resources.files("hoplens.studies.sweeps").joinpath("example.toml").read_text(encoding="utf-8")


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
    trust_code: bool = False,
    search: int | None = None,
    seed: int | None = None,
    seconds: float | None = None,
) -> int:
    """Run, search, resume or estimate a study; return the exit code."""
    if workers is not None:
        check_count("--workers", workers)
    found: Study | Search
    if file is None:
        folder = _to_resume(store, resume=resume)
        stored = read_stored(folder)
        if stored.strangers:
            show_code(console, folder, stored.strangers, dry_run=dry_run)
            if dry_run:
                return 0
            if not trust_code:
                raise FileError(ASK.format(store=folder))
        found = stored.load()
    else:
        found = load_study(file)
        folder = store or Path(f"{found.name}.store")
        if resume and not holds_store(usable_path(folder)):
            raise FileError(f"{folder} holds no run store to go on with; leave --resume out to begin one")
    if search is not None:
        trials = check_count("--search", search)
        if isinstance(found, Search):
            found = found.model_copy(update={"trials": trials})
        else:
            found = Search(study=found, trials=trials, seed=check_count("--seed", seed or 0, least=0))
    if isinstance(found, Search):
        return run_search(
            console,
            found,
            folder,
            dry_run=dry_run,
            seconds=seconds,
            executor=executor,
            workers=workers,
            attempts=attempts,
        )
    if seed is not None or seconds is not None:
        raise ParameterError("--seed and --seconds go with --search")
    plan = found.plan()
    if dry_run:
        local = executors.is_local(executor)
        print_estimate(console, plan, folder, workers=workers or executors.cores(), local=local)
        return 0
    with progress_bar(console, plan.name, stopped=stopped(folder)) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # failures are printed below
        done = run_sweep(plan, folder, executor=executor, workers=workers, attempts=attempts, progress=show)
    with done:
        return close(console, done, plan.id)


def _to_resume(store: Path | None, *, resume: bool) -> Path:
    """Return the store to go on with where there is no study file."""
    if not resume:
        raise ParameterError(
            "give a study file, or --resume --store DIR; `hoplens sweep --example` prints one"
        )
    if store is None:
        raise ParameterError("--resume without a study file needs --store DIR")
    return store


def print_estimate(
    console: Console, plan: Plan, folder: Path, *, workers: int, local: bool = True
) -> Estimate:
    """Print what is left to do of a plan; where it runs on this machine, refuse what does not fit it."""
    known: set[str] = set()
    if holds_store(usable_path(folder)):
        with open_store(folder) as store:
            known = set(store.query("SELECT key FROM networks")["key"]) & set(plan.by_key)
    shards = plan.shards(known, workers=workers)
    if local:
        check_memory(shards)
    found = estimate(plan, shards, workers=workers)
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
