"""Where to look at pathways: one penalty on bare weights, at the batch's mean point, and along the data."""

from __future__ import annotations

import argparse

import pandas as pd
import torch

import hoplens as hl
from hoplens.penalties.flow import FlowSpec
from hoplens.studies.comparison import package_study
from hoplens.studies.measuring import count_hops, flow_measures
from hoplens.training.recipes import PathwaySpec, Recipe, Term

STRENGTHS = (1e-4, 1e-3, 1e-2)
SEEDS = range(4)  # validation seeds of the study
HOPS = Recipe("default point", (Term(PathwaySpec()),), init="delay")
WAYS = (
    (None, (hl.recipes.none(), HOPS, Recipe("along the data", (Term(FlowSpec()),), init="delay"))),
    ("mean", (Recipe("mean point", HOPS.terms, init="delay"),)),
)


def measure(name: str) -> pd.DataFrame:
    """Mean validation error, active hops, and agreement with the flow of every way on one set."""
    chosen = package_study("real").settings_of("main")[name]
    frames = []
    for at, recipes in WAYS:
        result = hl.train(
            chosen.source,
            recipes,
            seeds=SEEDS,
            strengths=STRENGTHS,
            cell=chosen.settings.cell,
            hidden=chosen.settings.hidden,
            steps=chosen.settings.steps,
            at=at,
        )
        frame = result.metrics[["method", "strength", "validation_error"]].copy()
        frame["active_hops"] = count_hops(result).numpy()
        seen = [network.seed < 2 for network in result.networks]
        flow = [flow_measures(result, n) if own else {} for n, own in enumerate(seen)]
        frames.append(frame.join(pd.DataFrame(flow)))
    means = pd.concat(frames).groupby(["method", "strength"], sort=False).mean(numeric_only=True)
    return means[["validation_error", "active_hops", "flow_hops", "correlation"]].reset_index()


def main() -> None:
    """Print one row a set, way and strength."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=["motions", "digits-rows", "vowels"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | penalty on | strength | validation error | active hops | of the flow | correlation |")
    print("|---|---|---|---|---|---|---|")
    for name in options.sets:
        for row in measure(name).itertuples(index=False):
            print(
                f"| {name} | {row.method} | {row.strength:g} | {row.validation_error:.3f} | "
                f"{row.active_hops:.1f} | {row.flow_hops:.1f} | {row.correlation:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
