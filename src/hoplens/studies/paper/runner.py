"""Run a study into the run store of a results folder, and assemble the tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.studies.measures import BUILT_IN, KEPT, TARGET
from hoplens.studies.paper import aims, anchors
from hoplens.studies.paper.folder import claim_folder, run_plan, versions_in
from hoplens.studies.paper.plan import ABLATION, MAIN, REACH, settings_of, tasks_of
from hoplens.studies.paper.results import StudyResults
from hoplens.studies.statistics import paired_differences, summarise
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import Progress
from hoplens.studies.sweeps.store import RunStore

MEASURES = tuple(measure.name for measure in (*BUILT_IN, TARGET, *KEPT))
COMPARED = ("test_error", "accuracy", "alignment", "kept_70", "kept_90")


def run_study(
    plan: Plan,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> StudyResults:
    """Train and measure everything in a plan that the folder does not hold yet, and assemble the tables.

    The folder is a run store: every finished shard is kept at once, so that an interrupted study goes on
    where it stopped, and ends with the same numbers.

    Parameters
    ----------
    plan : Plan
        From `quick_plan` or `full_plan`, or an own one that compares `L1`, `paper` and `recommended` in its
        part "main".
    folder : Path
        Results folder of this study.
    workers : int, optional
        Processes, one thread each; default one a core. 1 runs in this process.
    progress : callable, optional
        Called with a `hoplens.sweeps.Progress` whenever something changed.

    Returns
    -------
    StudyResults

    Raises
    ------
    FileError
        If the folder cannot be used, or shards failed.
    """
    started = time.monotonic()
    claim_folder(Path(folder), plan)
    with run_plan(plan, Path(folder), workers=workers, progress=progress) as store:
        return assemble(plan, store, plan.id, seconds=time.monotonic() - started)


def assemble(plan: Plan, store: RunStore, study: str, *, seconds: float | None = None) -> StudyResults:
    """Build the tables of a study from its store.

    Parameters
    ----------
    plan : Plan
    store : RunStore
    study : str
        Id of the study in the store.
    seconds : float, optional
        How long it took, if it was run just now.
    """
    rows = {name: store.networks(study, part=name) for name in (MAIN, ABLATION, REACH)}
    keys = rows[MAIN]["key"]
    parts = {name: frame.drop(columns=["part", "key"]) for name, frame in rows.items()}
    networks, reach = parts[MAIN], reach_table(plan, parts[REACH])
    summary = summarise(networks, MEASURES)
    methods = [m for m in summary["method"].unique() if m != aims.OURS]
    paired = paired_differences(networks, aims.OURS, methods, COMPARED)
    ablation = summarise(parts[ABLATION], MEASURES) if len(parts[ABLATION]) else pd.DataFrame()
    return StudyResults(
        networks=networks,
        summary=summary,
        paired=paired,
        reach=reach,
        ablation=ablation,
        anchors=anchors.compare(networks),
        aims=aims.check(summary, reach, plan),
        examples=_examples(plan, store, networks.assign(key=keys), summary),
        settings=_settings(plan, store, study, seconds),
    )


def reach_table(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the reach part's networks with their lag."""
    columns = ["method", "lag", "strength", "seed", "role", "test_error"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    lags = {label: task.length - 1 - task.signal_steps[0] for label, task in tasks_of(plan, REACH).items()}
    return rows.assign(lag=rows["task"].map(lags))[[*columns, "task", "diverged_at"]]


def _examples(
    plan: Plan, store: RunStore, networks: pd.DataFrame, summary: pd.DataFrame
) -> dict[str, tuple[str, HopMaps] | HopMaps]:
    """Return hop maps of one network a method, all on the first sparse task, and the task's own.

    Each is the first report network at the method's strength whose weights are kept.
    """
    tasks = tasks_of(plan, MAIN)
    sparse = (name for name, t in tasks.items() if t.signal == "sparse" and t.name == "subtraction")
    label = next(sparse, next(iter(tasks)))
    task = tasks[label]
    hops = torch.arange(2, task.length + 2)
    names = (
        tuple(f"x{j}" for j in range(task.n_inputs)),
        tuple(f"y{j}" for j in range(task.n_outputs)),
        task.input_modules,
        task.output_modules,
    )
    found: dict[str, tuple[str, HopMaps] | HopMaps] = {"target": HopMaps(task.target_maps, hops, *names)}
    chosen = summary.loc[summary["task"] == label, ["task", "method", "strength"]]
    report = networks[networks["role"] == "report"].merge(chosen, on=["task", "method", "strength"])
    for method, key in zip(report["method"], report["key"], strict=True):
        if method not in found and store.tensors(key):
            net = store.ensemble(key).pathways()[0]
            found[method] = (label, HopMaps(hop_maps(net, task.length).values, hops, *names))
    return found


def _settings(plan: Plan, store: RunStore, study: str, seconds: float | None) -> dict[str, object]:
    s = next(iter(settings_of(plan, MAIN).values())).settings
    seeds = {
        role: list(dict.fromkeys(m.network.seed for m in plan.members if m.role == role))
        for role in ("validation", "report")
    }
    found: dict[str, object] = {
        "plan": f"{plan.name} (study {study})",
        "networks": len(plan.by_key),
        **{f"{role} seeds": f"{own[0]} .. {own[-1]}" for role, own in seeds.items()},
        "hidden units": s.hidden,
        "steps": s.steps,
        "batch": s.batch,
        "optimiser": f"Adam, learning rate {s.lr:g}, falling to 0 over the last {s.decay:.0%}",
        **versions_in(store, study),
    }
    return found if seconds is None else found | {"seconds in this run": round(seconds)}


__all__ = ["assemble", "reach_table", "run_study"]
