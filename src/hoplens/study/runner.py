"""Run a study's shards on all cores, keep each as it finishes, and assemble the tables."""

from __future__ import annotations

import functools
import platform
import time
from pathlib import Path

import pandas as pd
import torch

from hoplens.hops import HopMaps, hop_maps
from hoplens.statistics import paired_differences, summarise
from hoplens.study import aims, anchors
from hoplens.study.measure import PRUNING_LEVELS, measure
from hoplens.study.plan import ABLATION, MAIN, REACH, Shard, StudyPlan
from hoplens.study.pool import Finished, Progress, run_shards
from hoplens.study.results import StudyResults
from hoplens.study.store import ShardStore
from hoplens.training import train_networks

MEASURES = (
    "test_mse",
    "accuracy",
    "resolvent_corr",
    "weight_corr",
    "active_hops",
    "target_active_hops",
    "alignment",
    "temporal_sparsity",
    "signal_share",
    *(f"kept_{level}" for level in PRUNING_LEVELS),
)
COMPARED = ("test_mse", "accuracy", "alignment", "kept_70", "kept_90")


def run_study(
    plan: StudyPlan,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> StudyResults:
    """Train and measure everything in a plan that the folder does not hold yet, and assemble the tables.

    Every finished shard is kept at once, so that an interrupted study goes on where it stopped.

    Parameters
    ----------
    plan : StudyPlan
        From `quick_plan` or `full_plan`, or an own one.
    folder : Path
        Results folder of this study.
    workers : int, optional
        Processes, one thread each; default one a core. 1 runs in this process.
    progress : callable, optional
        Called as ``progress(shard, networks done, networks in all)`` after every shard.

    Returns
    -------
    StudyResults

    Raises
    ------
    FileError
        If the folder cannot be used.
    """
    started = time.monotonic()
    store = ShardStore(Path(folder), plan)
    work = functools.partial(run_shard, example_seed=plan.report_seeds[0])
    run_shards(plan.shards(), store, work, workers=workers, progress=progress)
    return assemble(plan, store, seconds=time.monotonic() - started)


def run_shard(shard: Shard, example_seed: int) -> Finished:
    """Train and measure one shard; also return hop maps (K, O, I) of its networks with the example seed."""
    result = train_networks(shard.task, shard.networks, shard.settings)
    frame = measure(result).rename(columns={"penalty": "method"})
    frame.insert(0, "part", shard.part)
    frame.insert(1, "task", shard.task.label)
    rows = [n for n, network in enumerate(shard.networks) if network.seed == example_seed]
    net = result.pathways
    return frame, {str(n): hop_maps(net[n], shard.task.length).values.contiguous() for n in rows}


def assemble(plan: StudyPlan, store: ShardStore, *, seconds: float) -> StudyResults:
    """Build the tables of a study from its finished shards."""
    frames = [store.load(shard) for shard in plan.shards()]
    rows = pd.concat([frame for frame in frames if frame is not None], ignore_index=True)
    rows["role"] = rows["seed"].isin(plan.report_seeds).map({True: "report", False: "validation"})
    parts = {name: rows[rows["part"] == name].drop(columns="part") for name in (MAIN, ABLATION, REACH)}
    networks, reach = parts[MAIN].reset_index(drop=True), reach_table(plan, parts[REACH])
    summary = summarise(networks, MEASURES)
    methods = [m for m in summary["method"].unique() if m != "recommended"]
    paired = paired_differences(networks, "recommended", methods, COMPARED)
    ablation = summarise(parts[ABLATION], MEASURES) if len(parts[ABLATION]) else pd.DataFrame()
    return StudyResults(
        networks=networks,
        summary=summary,
        paired=paired,
        reach=reach,
        ablation=ablation,
        anchors=anchors.compare(networks),
        aims=aims.check(summary, reach, plan),
        examples=_examples(plan, store, summary),
        settings=_settings(plan, seconds),
    )


def reach_table(plan: StudyPlan, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the reach part's networks with their lag."""
    part = plan.part(REACH)
    if part is None or rows.empty:
        return pd.DataFrame(columns=["method", "lag", "strength", "seed", "role", "test_mse"])
    lags = {task.label: task.length - 1 - task.signal_steps[0] for task in part.tasks}
    frame = rows.assign(lag=rows["task"].map(lags))
    return frame[
        ["method", "lag", "strength", "seed", "role", "test_mse", "task", "diverged_at"]
    ].reset_index(drop=True)


def _examples(
    plan: StudyPlan, store: ShardStore, summary: pd.DataFrame
) -> dict[str, tuple[str, HopMaps] | HopMaps]:
    """Return hop maps of one network a method, all on the first sparse task, and the task's own."""
    part = plan.part(MAIN)
    assert part is not None
    task = next((t for t in part.tasks if t.signal == "sparse" and t.name == "subtraction"), part.tasks[0])
    chosen = summary[summary["task"] == task.label].set_index("method")["strength"]
    hops = torch.arange(2, task.length + 2)
    names = (
        tuple(f"x{j}" for j in range(task.n_inputs)),
        tuple(f"y{j}" for j in range(task.n_outputs)),
        task.input_modules,
        task.output_modules,
    )
    found: dict[str, tuple[str, HopMaps] | HopMaps] = {"target": HopMaps(task.target_maps, hops, *names)}
    for shard in plan.shards():
        if shard.part != MAIN or shard.task != task:
            continue
        for row, values in store.load_maps(shard).items():
            network = shard.networks[int(row)]
            if chosen.get(network.recipe.name) == network.strength:
                found[network.recipe.name] = (task.label, HopMaps(values, hops, *names))
    return found


def _settings(plan: StudyPlan, seconds: float) -> dict[str, object]:
    s = plan.settings
    return {
        "plan": f"{plan.name} (key {plan.key})",
        "networks": sum(len(shard.networks) for shard in plan.shards()),
        "validation seeds": f"{plan.validation_seeds[0]} .. {plan.validation_seeds[-1]}",
        "report seeds": f"{plan.report_seeds[0]} .. {plan.report_seeds[-1]}",
        "hidden units": s.hidden,
        "steps": s.steps,
        "batch": s.batch,
        "optimiser": f"Adam, learning rate {s.lr:g}, falling to 0 over the last {s.decay:.0%}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds in this run": round(seconds),
    }
