"""Hyper-parameter search: each trial is the validation seeds of one method on one task, in the run store."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hoplens.errors import FileError, HoplensError, ParameterError, check_count, check_number
from hoplens.studies.extensions import SourceFile
from hoplens.studies.sweeps import executors
from hoplens.studies.sweeps.checked import damaged, read_object
from hoplens.studies.sweeps.complaints import complain
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.describe import NAMES_IN_STORES, content_hash
from hoplens.studies.sweeps.limits import check_memory
from hoplens.studies.sweeps.method_search import MethodSearch, cells_of, load_optuna
from hoplens.studies.sweeps.plan import Member, Plan
from hoplens.studies.sweeps.running import (
    ATTEMPTS,
    SHORT,
    Progress,
    check_plugins,
    closed,
    interrupts,
    logged,
    run_sweep,
)
from hoplens.studies.sweeps.space import Value
from hoplens.studies.sweeps.status import clock
from hoplens.studies.sweeps.store import RunStore
from hoplens.studies.sweeps.strict import Strict
from hoplens.studies.sweeps.trials import SearchDriver, SearchPlan
from hoplens.studies.sweeps.work import Shard, probe
from hoplens.studies.sweeps.writer import StoreWriter
from hoplens.text import printable

if TYPE_CHECKING:
    import pandas as pd

TRIALS = 50
log = logging.getLogger("hoplens.sweeps")


class Search(Strict):
    """A search as a store keeps it.

    Parameters
    ----------
    study : Study
        With ``search``.
    trials : int
        Of each method on each task.
    seed : int
        Of the choices.
    """

    study: Study
    trials: int = TRIALS
    seed: int = 0

    @property
    def name(self) -> str:
        """What the store calls the study of all trials."""
        return f"{self.study.name} search"


def search(
    study: Study,
    store: str | os.PathLike[str],
    *,
    trials: int = TRIALS,
    seconds: float | None = None,
    seed: int = 0,
    executor: Executor | str | None = None,
    workers: int | None = None,
    attempts: int = ATTEMPTS,
    progress: Callable[[Progress], object] | None = None,
) -> RunStore:
    """Search strengths and training settings of every method on every task, then train the best found.

    Each method on each task is searched by itself with a tree-structured Parzen estimator (optuna's
    ``TPESampler``), so that methods are compared at their best. A trial trains the study's validation seeds
    as one batch, and what is minimised is their mean ``test_error``; one that diverges counts as infinite.
    The report seeds are trained for the best trial alone.

    The store gets two studies: "NAME search" has a row for each network of each trial (``part`` says which
    trial; `trial_table` sums it up), and NAME has the best found, validation and report seeds. Networks that
    the store knows are not trained again: an interrupted search goes on where it stopped, and ends with the
    trials of an undisturbed one; more ``trials`` go on from fewer.

    Parameters
    ----------
    study : Study
        With a table ``search``; its ``strengths`` need not be given if that has ``strength``.
    store : path
        Folder of the run store.
    trials : int, default 50
        Of each method on each task; a method with nothing to search has one.
    seconds : float, optional
        Begin no trial later than that.
    seed : int, default 0
        Of the choices; seed, study and ``trials`` determine them all, whatever the executor.
    executor, workers, attempts, progress
        As in `run_sweep`. Methods and tasks are searched side by side, the trials of one after each other.

    Returns
    -------
    RunStore
        Opened for reading.

    Raises
    ------
    ParameterError
        If optuna is missing, the study has no ``search``, or no trial could be trained.
    FileError, KeyboardInterrupt
        As `run_sweep`; all finished trials are kept.

    Warns
    -----
    UserWarning
        If trials failed; ``store.failures()`` of the search says why.
    """
    whole = Search(study=study, trials=check_count("trials", trials), seed=check_count("seed", seed, least=0))
    found, _, _ = run_search(
        whole,
        Path(store),
        seconds=seconds,
        executor=executor,
        workers=workers,
        attempts=attempts,
        progress=progress,
    )
    return found


def run_search(
    whole: Search,
    folder: Path,
    *,
    seconds: float | None = None,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> tuple[RunStore, str, str]:
    """Search; return the store, and the ids of the search and of the study of the best found in it.

    Parameters
    ----------
    whole : Search
    folder : Path
    seconds, progress, options
        See `search`.
    """
    if seconds is not None:
        check_number("seconds", seconds, above=0.0)
    cells = _begun(whole)
    plan = _plan(whole, [member for cell in cells for member in cell.networks])
    _run(plan, whole.trials, cells, folder, seconds, progress=progress, **options)
    best = _best_plan(whole, cells)
    if best is None:
        raise ParameterError(
            "no trial of the search ended with a finite error; `hoplens status` shows failed ones"
        )
    return run_sweep(best, folder, progress=progress, **options), plan.id, best.id


def trial_table(store: RunStore, study: str | None = None) -> pd.DataFrame:
    """Return one row a trial of a search: what was tried, and the mean error over the validation seeds.

    Parameters
    ----------
    store : RunStore
    study : str, optional
        Id or name, without its " search"; default the latest search in the store.

    Returns
    -------
    DataFrame
        Columns part (with the trial's number), task, method, strength, the settings of training, test_error
        (NaN where a network diverged) and seeds; in the order in which trials were asked for.
    """
    import pandas as pd

    found = store.studies()
    names = found["name"][found["name"].str.endswith(" search")]
    if study is None and len(names):
        study = found["id"][names.index[-1]]
    elif study is not None and study not in set(found["id"]):
        study = f"{study} search"
    rows = store.networks(study, details=True)
    rows = rows[rows["part"].str.contains(r"trial \d+$")]
    if rows.empty:
        raise ParameterError(f"{store.folder} holds no search; `hoplens sweep --search` runs one")
    settings = [_settings_in(text, store.folder) for text in rows["config"]]
    tried = pd.DataFrame(settings)
    keys = ["part", "task", "method", "strength", *tried.columns]
    if len(set(keys)) < len(keys):
        raise damaged(store.folder, "a setting of a trial is called as another column")
    frame = pd.concat([rows[[*keys[:4], "test_error"]].reset_index(drop=True), tried], axis=1)
    groups = frame.groupby(keys, sort=False)["test_error"]
    return groups.agg(test_error=lambda values: values.mean(skipna=False), seeds="size").reset_index()


def _settings_in(config: str, folder: Path) -> dict[str, Value]:
    """Return the settings of training in a network's configuration."""
    setting = read_object(config, folder, "a network's configuration").get("setting")
    settings = setting.get("settings") if isinstance(setting, dict) else None
    if not isinstance(settings, dict) or not all(isinstance(v, int | float | str) for v in settings.values()):
        raise damaged(folder, "a trial's configuration has no settings of training")
    own = {str(stored): name.removeprefix("Settings.") for name, stored in NAMES_IN_STORES.items()}
    return {
        str(own.get(name, name)): value for name, value in settings.items() if name not in ("is", "eager")
    }


def _plan(whole: Search, first: list[Member]) -> SearchPlan:
    spec = whole.study.search
    assert spec is not None
    mark = content_hash([whole.seed, spec.model_dump(mode="json")])
    plugins = tuple(plugin.source for plugin in whole.study.plugins)
    source = whole.model_dump_json(exclude_defaults=True)
    return SearchPlan(whole.name, tuple(first), source, plugins, mark)


def _best_plan(whole: Search, cells: list[MethodSearch]) -> Plan | None:
    """Return the study of the best trials, on validation and report seeds; None if there are none."""
    members = []
    for cell in cells:
        if cell.best is None:
            continue
        like = cell.best[1][0]
        for role in ("validation", "report"):
            for seed in getattr(whole.study.seeds, role):
                network = replace(like.network, seed=seed)
                members.append(Member(cell.block, cell.label, network, role, like.setting))
    if not members:
        return None
    plugins = tuple(plugin.source for plugin in whole.study.plugins)
    return Plan(whole.study.name, tuple(members), whole.model_dump_json(exclude_defaults=True), plugins)


def _run(
    plan: SearchPlan,
    trials: int,
    cells: list[MethodSearch],
    folder: Path,
    seconds: float | None,
    *,
    executor: Executor | str | None,
    workers: int | None,
    attempts: int,
    progress: Callable[[Progress], object] | None,
) -> None:
    """Run all trials of a search into a store."""
    check_count("attempts", attempts)
    with ExitStack() as stack:
        check_plugins(plan)
        writer = stack.enter_context(StoreWriter(folder))
        stack.enter_context(logged(folder))
        writer.begin(plan)
        writer.drop_lost(plan)
        parallel = min(len(cells), workers or executors.cores())
        if executor is None:
            executor = "processes" if _is_long(cells, trials, parallel) else "in-process"
        log.info("search %s (%s): %d trials of %d, %s", plan.name, plan.id, trials, len(cells), executor)
        if isinstance(executor, str):
            workers = parallel if executor == "processes" else workers
            own = executors.connect(executor, workers=workers, folder=folder)
            executor = stack.enter_context(closed(own))
        stop = stack.enter_context(interrupts())
        driver = SearchDriver(plan, writer, {}, executor, workers, attempts, progress, stop)
        driver.search(cells, trials, seconds)
    if driver.failed:
        warnings.warn(
            f"{driver.failed} networks of trials are missing as their shards failed; failures() of the store "
            f"for {plan.name!r} says why",
            stacklevel=3,
        )


def _is_long(cells: list[MethodSearch], trials: int, workers: int) -> bool:
    """Return whether processes pay: there are several searches, and the first trials make them long."""
    if workers == 1:
        return False
    seconds = 0.0
    for cell in cells:
        found = probe(Shard(cell.networks[0].setting, tuple(m.network for m in cell.networks)))
        seconds += math.inf if found is None else found * (trials if cell.spans else 1)
        if seconds > SHORT:
            return True
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from telling every study that it makes."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def search_estimate(whole: Search, *, workers: int) -> list[str]:
    """Return what a search would take, in words, from a short trial of its first trials.

    Parameters
    ----------
    whole : Search
    workers : int
        Processes.
    """
    cells = _begun(whole)
    tries = [whole.trials if cell.spans else 1 for cell in cells]
    seconds = [probe(Shard(c.networks[0].setting, tuple(m.network for m in c.networks))) for c in cells]
    known = [each * n for each, n in zip(seconds, tries, strict=True) if each is not None]
    lanes = min(workers, len(cells))
    time = f"about {clock(sum(known) / lanes)}" if len(known) == len(cells) else "unknown"
    seeds = whole.study.seeds
    count = sum(tries) * len(seeds.validation) + len(cells) * len(seeds.report)
    return [
        f"{whole.name}: {sum(tries)} trials in {len(cells)} searches, at most {count} networks",
        f"time: {time} of training on {lanes} processes, by the first trial of each search",
    ]


def _begun(whole: Search) -> list[MethodSearch]:
    """Return the searches, each with its first trial begun."""
    if whole.study.search is None:
        raise ParameterError("the study has no [search]; say there what to search, e.g. strength")
    load_optuna()
    with _quiet():
        cells = cells_of(whole.study, whole.seed)
        check_memory(cell.largest() for cell in cells)
        for cell in cells:
            cell.ask()
    return cells


def source_of(text: str, folder: Path) -> Study | Search:
    """Return the study or search that a store keeps as JSON.

    Parameters
    ----------
    text : str
        From `RunStore.source`; its code must be loaded, see `code_of`.
    folder : Path
        The store, for errors.

    Raises
    ------
    FileError
        If it holds no study that this version of hoplens knows.
    """
    kind: type[Study | Search] = Search if "study" in read_object(text, folder, "the study") else Study
    try:
        return kind.model_validate_json(text)
    except (ValueError, RecursionError, HoplensError) as error:
        reason = complain(error, kind, "", "study") if isinstance(error, ValidationError) else str(error)
        raise FileError(
            f"{folder} holds a study that this version of hoplens does not know ({printable(reason)}); run "
            "it from its file"
        ) from None


def code_of(text: str, folder: Path) -> tuple[SourceFile, ...]:
    """Return the files of code that a study in a store brings, without running them; see `source_of`."""
    found = read_object(text, folder, "the study")
    inner = found.get("study", found)
    plugins = inner.get("plugins", []) if isinstance(inner, dict) else []
    if not isinstance(plugins, list) or not all(_is_code(plugin) for plugin in plugins):
        raise damaged(folder, "the plugins of its study are no list of paths and texts")
    return tuple(SourceFile(plugin["path"], plugin["text"]) for plugin in plugins)


def _is_code(plugin: object) -> bool:
    return isinstance(plugin, dict) and all(isinstance(plugin.get(name), str) for name in ("path", "text"))


__all__ = [
    "TRIALS",
    "Search",
    "code_of",
    "run_search",
    "search",
    "search_estimate",
    "source_of",
    "trial_table",
]
