"""Run the study on real sequences: choose on validation, report on test, keep every finished shard."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hoplens.studies.paper.aims import OURS
from hoplens.studies.paper.folder import claim_folder, run_plan, versions_in
from hoplens.studies.real import aims
from hoplens.studies.real.choosing import BEST, LEAN, PRUNED, choose, pairs_of, rows_of
from hoplens.studies.real.plan import ARMS, RealPlan
from hoplens.studies.real.results import RealResults
from hoplens.studies.real.setting import REPORT, VALIDATION, WIRING
from hoplens.studies.statistics import bootstrap_mean, pair_chosen, summarise_chosen
from hoplens.studies.sweeps.plan import Plan
from hoplens.studies.sweeps.running import Progress
from hoplens.studies.sweeps.store import RunStore

PAIRED = ("test_error", "test_error_70", "test_error_90", "test_error_int8", "active_hops")
KEYS = ("task", "method", "strength", "seed", "diverged_at")
UNITS = {
    "class": "share of wrong classes",
    "step class": "bits a step",
    "step labels": "nats a step",
    "step values": "share of the targets' variance",
}


def run_real_study(
    plan: RealPlan,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress, str], object] | None = None,
) -> RealResults:
    """Do everything in a plan that the folder does not hold yet, and assemble the tables.

    Validation and wiring come first; the strengths chosen on validation say what is trained for the report.
    The folder is a run store that holds both: every finished shard is kept at once, so that an interrupted
    study goes on where it stopped, and ends with the same numbers.

    Parameters
    ----------
    plan : RealPlan
        From `quick_real_plan` or `full_real_plan`, or an own one.
    folder : Path
        Results folder of this study.
    workers : int, optional
        Processes, one thread each; default one a core.
    progress : callable, optional
        Called with a `hoplens.sweeps.Progress` of the stage, and "choosing" or "report", whenever something
        changed.

    Returns
    -------
    RealResults

    Raises
    ------
    ParameterError
        If a package that carries a data set is missing.
    FileError
        If the folder cannot be used, a data file is damaged, or shards failed.
    """
    started = time.monotonic()
    for data in (*plan.sets, *plan.wired):
        data.load()  # what is missing is said before anything is trained
    folder, first = Path(folder), plan.first_plan()
    claim_folder(folder, first)
    with run_plan(first, folder, workers=workers, progress=_staged(progress, "choosing")) as store:
        validation, wiring = _rows(store, first, VALIDATION), _rows(store, first, WIRING)
    choices = choose(validation)
    report = plan.report_plan(pairs_of(choices))
    with run_plan(report, folder, workers=workers, progress=_staged(progress, "report")) as store:
        networks = _rows(store, report, REPORT)
        settings = {
            "plan": f"{plan.name} (studies {first.id} and {report.id})",
            "networks": len(first.by_key) + len(report.by_key),
            **_settings(plan),
            **versions_in(store, report.id),
            "seconds in this run": round(time.monotonic() - started),
        }
    return assemble(plan, validation, wiring, networks, choices, settings)


def _staged(
    progress: Callable[[Progress, str], object] | None, stage: str
) -> Callable[[Progress], object] | None:
    return None if progress is None else lambda seen: progress(seen, stage)


def _rows(store: RunStore, plan: Plan, part: str) -> pd.DataFrame:
    return store.networks(plan.id, part=part).drop(columns=["part", "role", "key"])


def assemble(
    plan: RealPlan,
    validation: pd.DataFrame,
    wiring: pd.DataFrame,
    networks: pd.DataFrame,
    choices: pd.DataFrame,
    settings: dict[str, object],
) -> RealResults:
    """Build the tables of a study from the rows of its networks."""
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
        wiring=wiring_table(wiring.rename(columns={"method": "arm"})),
        aims=aims.check(summary, _lean_gaps(choices, networks), paired),
        units={data.name: UNITS[data.load().form] for data in plan.sets},
        settings=settings,
    )


def _lean_gaps(choices: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return our lean networks' test error minus that of L1's best ones, seed by seed."""
    ours, theirs = rows_of(choices, networks, LEAN), rows_of(choices, networks, BEST)
    both = pd.concat([ours[ours["method"] == OURS], theirs[theirs["method"] == aims.L1]])
    return pair_chosen(both, OURS, [aims.L1], ["test_error"])


def wiring_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval of the test error for every arm, and its paired difference to its null."""
    if rows.empty:
        return pd.DataFrame(columns=["task", "arm", "n", "nonzero", "test_error", "low", "high"])
    found = []
    for task, group in rows.groupby("task", sort=False):
        by_arm = {arm: own.set_index("seed")["test_error"] for arm, own in group.groupby("arm")}
        for arm in ARMS:
            own = by_arm[arm]
            null = by_arm["rewired start" if arm.endswith("start") else "rewired"]
            gap = bootstrap_mean((own - null).dropna().to_numpy())
            nonzero = float(np.mean(group.loc[group["arm"] == arm, "nonzero"]))
            found.append((task, arm, len(own), nonzero, *bootstrap_mean(own.to_numpy()), *gap))
    gaps = ["difference", "difference_low", "difference_high"]
    return pd.DataFrame(found, columns=["task", "arm", "n", "nonzero", "test_error", "low", "high", *gaps])


def _settings(plan: RealPlan) -> dict[str, object]:
    s = plan.sets[0].settings
    return {
        "sets": ", ".join(f"{d.name} ({d.cell}, {d.hidden} units, {d.steps} steps)" for d in plan.sets),
        "validation seeds": f"{plan.validation_seeds[0]} .. {plan.validation_seeds[-1]}",
        "report seeds": f"{plan.report_seeds[0]} .. {plan.report_seeds[-1]}",
        "optimiser": f"Adam, learning rate {s.lr:g}, falling to 0 over the last {s.decay:.0%}",
    }


__all__ = ["run_real_study", "wiring_table"]
