"""``hoplens sweep``: run a study into a store, go on with one, or say what it would take."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path

from rich.console import Console

from hoplens.cli.commands.progress import progress_bar
from hoplens.errors import FileError, ParameterError, check_count
from hoplens.files import usable_path
from hoplens.studies.comparison.running import study_text
from hoplens.studies.extensions.files import SourceFile
from hoplens.studies.sweeps import executors
from hoplens.studies.sweeps.config import Study, load_study
from hoplens.studies.sweeps.estimate import Estimate, estimate
from hoplens.studies.sweeps.limits import check_memory
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import run_stages
from hoplens.studies.sweeps.status import clock
from hoplens.studies.sweeps.store import RunStore, open_store
from hoplens.studies.sweeps.stored import read_stored
from hoplens.studies.sweeps.storefiles import holds_store
from hoplens.studies.sweeps.trust import code_hash
from hoplens.text import printable

SOME_FAILED = 1  # exit code
ASK = (
    "{store} holds Python code that you have not run before, shown above, and going on runs it with all your "
    "rights; read it, then give --trust-code, or run the study from its file"
)


def example(name: str | None = None) -> str:
    """Return the commented example of a study, or a study of the package by its name."""
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
) -> int:
    """Run, resume or estimate a study; return the exit code."""
    if workers is not None:
        check_count("--workers", workers)
    if file is None:
        folder = _to_resume(store, resume=resume)
        stored = read_stored(folder)
        if stored.strangers:
            _show_code(console, folder, stored.strangers, dry_run=dry_run)
            if dry_run:
                return 0
            if not trust_code:
                raise FileError(ASK.format(store=folder))
        study = stored.load()
    else:
        study = load_study(file)
        folder = store or Path(f"{study.name}.store")
        if resume and not holds_store(usable_path(folder)):
            raise FileError(f"{folder} holds no run store to go on with; leave --resume out to begin one")
    if dry_run:
        local = executors.is_local(executor)
        print_estimate(console, study, folder, workers=workers or executors.cores(), local=local)
        return 0
    again = f"`hoplens sweep --resume --store {folder}` goes on from there."
    stopped = f"stopped; every finished shard is kept. {again}"
    with progress_bar(console, study.name, stopped=stopped) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # failures are printed below
        done, plan = run_stages(
            study, folder, executor=executor, workers=workers, attempts=attempts, progress=show
        )
    with done:
        return _close(console, done, plan.id)


def _to_resume(store: Path | None, *, resume: bool) -> Path:
    """Return the store to go on with where there is no study file."""
    if not resume:
        raise ParameterError(
            "give a study file, or --resume --store DIR; `hoplens sweep --example` prints one"
        )
    if store is None:
        raise ParameterError("--resume without a study file needs --store DIR")
    return store


def _show_code(console: Console, folder: Path, code: tuple[SourceFile, ...], *, dry_run: bool) -> None:
    """Print the code that a store brings, whole, with nothing in it that a terminal would act on."""
    lines = []
    for source in code:
        lines.append(f"--- {printable(source.path)}, as the store calls it (SHA-256 {code_hash(source)})")
        lines += [printable(line, most=len(line)) for line in source.text.replace("\t", "    ").split("\n")]
    lines.append("--- end of the code")
    if dry_run:
        lines.append(f"nothing was run: going on with {printable(folder)} would run this code (--trust-code)")
    _say(console, *lines)


def _close(console: Console, store: RunStore, study: str) -> int:
    """Say what there is now of a study, and which shards failed; return the exit code."""
    counts = store.query("SELECT count(DISTINCT key) AS n FROM members WHERE study = ?", [study])
    done, total = store.networks(study)["key"].nunique(), int(counts["n"].iloc[0])
    _say(console, f"{done} of {total} networks are in {store.folder}; `hoplens status` shows them")
    failures = store.failures(study)
    if failures.empty:
        return 0
    first = printable(failures["reason"].iloc[0])
    _say(
        console,
        f"{len(failures)} shards failed, the first: {first}; --resume tries them again, sweep.log in the "
        "store says more",
    )
    return SOME_FAILED


def print_estimate(
    console: Console, study: Study, folder: Path, *, workers: int, local: bool = True
) -> Estimate:
    """Print what is left to do of a study; where it runs on this machine, refuse what does not fit it."""
    plan, known = _next_plan(study, folder)
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
    if study.in_stages and plan.id == study.plan().id:
        lines.append("then the report seeds, at the strengths that these networks choose")
    _say(console, *lines)
    return found


def _next_plan(study: Study, folder: Path) -> tuple[Plan, set[str]]:
    """Return what a study trains next, and what the store holds of it."""
    plan = study.plan()
    if not holds_store(usable_path(folder)):
        return plan, set()
    with open_store(folder) as store:
        keys = set(store.query("SELECT key FROM networks")["key"])
        ids = set(store.studies()["id"])
        if study.in_stages and plan.id in ids and set(plan.by_key) <= keys:
            plan = study.chosen_plan(store.networks(plan.id))
    return plan, keys & set(plan.by_key)


def _say(console: Console, *lines: str) -> None:
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


__all__ = ["example", "print_estimate", "run_sweep_command"]
