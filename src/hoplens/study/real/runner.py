"""Run the study on real sequences: choose on validation, report on test, keep every finished shard."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hoplens.sequences import train_sequence_networks
from hoplens.statistics import bootstrap_mean, pair_chosen, summarise_chosen
from hoplens.study.aims import OURS
from hoplens.study.pool import Finished, Progress, run_shards
from hoplens.study.real import aims
from hoplens.study.real.choosing import BEST, LEAN, PRUNED, choose, pairs_of, rows_of
from hoplens.study.real.measure import measure_report, measure_validation
from hoplens.study.real.plan import ARMS, VALIDATION, WIRING, RealPlan, RealShard
from hoplens.study.real.results import RealResults
from hoplens.study.real.wiring import make_wiring, worm
from hoplens.study.store import ShardStore

PAIRED = ("error", "error_70", "error_90", "error_int8", "active_hops")
KEYS = ("task", "method", "strength", "seed", "diverged_at")
UNITS = {
    "class": "share of wrong classes",
    "step class": "bits a step",
    "step labels": "nats a step",
    "step values": "share of the targets' variance",
}


def run_real_study(
    plan: RealPlan, folder: Path, *, workers: int | None = None, progress: Progress | None = None
) -> RealResults:
    """Do everything in a plan that the folder does not hold yet, and assemble the tables.

    Validation and wiring come first; the strengths chosen on validation say what is trained for the report.
    Every finished shard is kept at once, so that an interrupted study goes on where it stopped.

    Parameters
    ----------
    plan : RealPlan
        From `quick_real_plan` or `full_real_plan`, or an own one.
    folder : Path
        Results folder of this study.
    workers : int, optional
        Processes, one thread each; default one a core.
    progress : callable, optional
        Called as ``progress(shard, networks done, networks in all)`` after every shard.

    Returns
    -------
    RealResults

    Raises
    ------
    ParameterError
        If a package that carries a data set is missing.
    FileError
        If the folder cannot be used, or a data file is damaged.
    """
    started = time.monotonic()
    for data in (*plan.sets, *plan.wired):
        data.load()  # what is missing is said before anything is trained
    store, first = ShardStore(Path(folder), plan), plan.first_shards()
    pairs = sum(len({recipe.name for recipe, _ in plan.methods}) for _ in plan.sets)
    least = len(plan.report_seeds) * pairs  # more where a method has several strengths to report
    count = sum(len(shard.networks) for shard in first)
    done = run_shards(first, store, run_real_shard, workers=workers, progress=progress, total=count + least)
    choices = choose(_rows(store, first, VALIDATION))
    report = plan.report_shards(pairs_of(choices))
    run_shards(report, store, run_real_shard, workers=workers, progress=progress, done=done)
    return assemble(plan, store, seconds=time.monotonic() - started)


def run_real_shard(shard: RealShard) -> Finished:
    """Train and measure one shard; no maps are kept."""
    data = shard.data.load()
    options: dict[str, Any] = {}
    if shard.stage == WIRING:
        wirings = [make_wiring(arm, n.seed) for arm, n in zip(shard.arms, shard.networks, strict=True)]
        _, sensory, motor = worm()
        options = {
            "mask": torch.stack([wiring.mask for wiring in wirings]),
            "w_rec": torch.stack([wiring.w_rec for wiring in wirings]),
            "input_units": sensory,
            "output_units": motor,
        }
    result = train_sequence_networks(data, shard.networks, shard.data.settings, **options)
    if shard.stage == VALIDATION:
        frame = measure_validation(result)
    elif shard.stage == WIRING:
        names = {"test_error": "error", "test_loss": "loss"}
        frame = result.metrics.rename(columns=names)[[*KEYS[2:4], *names.values(), "nonzero", "diverged_at"]]
        frame.insert(0, "arm", list(shard.arms))
    else:
        frame = measure_report(result, shard.followed)
    frame.insert(0, "task", shard.data.name)
    return frame, {}


def _rows(store: ShardStore, shards: list[RealShard], stage: str) -> pd.DataFrame:
    frames = [store.load(shard) for shard in shards if shard.stage == stage]
    found = [frame for frame in frames if frame is not None]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def assemble(plan: RealPlan, store: ShardStore, *, seconds: float) -> RealResults:
    """Build the tables of a study from its finished shards."""
    first = plan.first_shards()
    validation = _rows(store, first, VALIDATION)
    choices = choose(validation)
    report = plan.report_shards(pairs_of(choices))
    networks = _rows(store, report, "report")
    measures = [c for c in networks.columns if c not in KEYS]
    methods = [recipe.name for recipe, _ in plan.methods if recipe.name != OURS]
    summaries, pairs = [], []
    for pick in (BEST, PRUNED, LEAN):
        rows = rows_of(choices, networks, pick)
        table = summarise_chosen(rows, measures)
        table.insert(2, "pick", pick)
        summaries.append(table)
        paired = pair_chosen(rows, OURS, methods, [m for m in PAIRED if m in measures])
        paired.insert(2, "pick", pick)
        pairs.append(paired)
    summary, paired = pd.concat(summaries, ignore_index=True), pd.concat(pairs, ignore_index=True)
    return RealResults(
        networks=networks,
        validation=validation,
        choices=choices,
        summary=summary,
        paired=paired,
        wiring=wiring_table(_rows(store, first, WIRING)),
        aims=aims.check(summary, _lean_gaps(choices, networks), paired),
        units={data.name: UNITS[data.load().form] for data in plan.sets},
        settings=_settings(plan, sum(len(shard.networks) for shard in (*first, *report)), seconds),
    )


def _lean_gaps(choices: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return our lean networks' test error minus that of L1's best ones, seed by seed."""
    ours, theirs = rows_of(choices, networks, LEAN), rows_of(choices, networks, BEST)
    both = pd.concat([ours[ours["method"] == OURS], theirs[theirs["method"] == aims.L1]])
    return pair_chosen(both, OURS, [aims.L1], ["error"])


def wiring_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval of the test error for every arm, and its paired difference to its null."""
    if rows.empty:
        return pd.DataFrame(columns=["task", "arm", "n", "nonzero", "error", "low", "high"])
    found = []
    for task, group in rows.groupby("task", sort=False):
        by_arm = {arm: own.set_index("seed")["error"] for arm, own in group.groupby("arm")}
        for arm in ARMS:
            own = by_arm[arm]
            null = by_arm["rewired start" if arm.endswith("start") else "rewired"]
            gap = bootstrap_mean((own - null).dropna().to_numpy())
            nonzero = float(np.mean(group.loc[group["arm"] == arm, "nonzero"]))
            found.append((task, arm, len(own), nonzero, *bootstrap_mean(own.to_numpy()), *gap))
    gaps = ["difference", "difference_low", "difference_high"]
    return pd.DataFrame(found, columns=["task", "arm", "n", "nonzero", "error", "low", "high", *gaps])


def _settings(plan: RealPlan, networks: int, seconds: float) -> dict[str, object]:
    s = plan.sets[0].settings
    return {
        "plan": f"{plan.name} (key {plan.key})",
        "networks": networks,
        "sets": ", ".join(f"{d.name} ({d.cell}, {d.hidden} units, {d.steps} steps)" for d in plan.sets),
        "validation seeds": f"{plan.validation_seeds[0]} .. {plan.validation_seeds[-1]}",
        "report seeds": f"{plan.report_seeds[0]} .. {plan.report_seeds[-1]}",
        "optimiser": f"Adam, learning rate {s.lr:g}, falling to 0 over the last {s.decay:.0%}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds in this run": round(seconds),
    }


__all__ = ["run_real_study"]
