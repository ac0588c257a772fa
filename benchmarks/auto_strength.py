"""How good and how dear ``strengths="auto"`` is, on the sets of the real study and the tasks of the paper's.

For each: test error of the recommended recipe at the strength that "auto" chooses, over that at the best
of all strengths trained in full (picked on the test data itself, so that no rule can beat it); and the time
of one network with "auto" over that of one at a given strength. ``--quick`` does three of each.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

import hoplens as hl
from hoplens.studies.comparison import package_study
from hoplens.studies.sweeps.plan import MAIN
from hoplens.training.recipes import default_strengths
from hoplens.training.settings import Network
from hoplens.training.strengths import search_strengths
from hoplens.training.training import train_networks

SEEDS = range(4)
NEAR = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recipe", default="recommended")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = hl.extensions.make_recipe(options.recipe)
    for suite in ("real", "paper"):
        settings = list(package_study(suite).settings_of(MAIN).items())
        near, rows = 0, settings[:3] if options.quick else settings
        for label, setting in rows:
            ratio, cost, chosen, best = judge(setting.source, recipe, setting.settings)
            near += ratio <= NEAR
            print(
                f"{label:28} chosen {chosen:g}, best {best:g}: error x {ratio:.2f}, time x {cost:.2f}",
                flush=True,
            )
        print(f"{suite}: within {NEAR - 1:.0%} of the best on {near} of {len(rows)}", flush=True)


def judge(source, recipe, settings):
    """Return error and time of "auto" over those of the best and of one network, and both strengths."""
    strengths = default_strengths(recipe)
    networks = [Network(recipe, strength, seed) for strength in strengths for seed in SEEDS]
    errors = train_networks(source, networks, settings).metrics.groupby("strength")["test_error"].mean()

    def train(few, short):
        return train_networks(source, few, short)

    chosen = search_strengths(source, [recipe], list(SEEDS), settings, train)[0][recipe]
    short = replace(settings, steps=40)
    one = timed(lambda: train_networks(source, [Network(recipe, chosen, 0)], short))
    # of one network: a quarter of the steps with all strengths at once, then all steps with one
    tried = [Network(recipe, strength, 0) for strength in strengths]
    search = timed(lambda: train_networks(source, tried, replace(settings, steps=10)))
    return errors[chosen] / errors.min(), (one + search) / one, chosen, float(errors.idxmin())


def timed(function):
    function()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
