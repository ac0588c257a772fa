"""The worm's wiring as a prior: networks that start from it, or have only its weights, and random twins."""

from __future__ import annotations

import argparse
import functools

import numpy as np
import torch
from torch import Tensor

import hoplens as hl
from hoplens.analysis.nulls.networks import null_network
from hoplens.data.connectome import celegans
from hoplens.seeds import numpy_generator
from hoplens.studies.statistics import bootstrap_mean

ARMS = ("all to all", "worm", "rewired", "random", "worm start", "rewired start")
SETS = {"digits-rows": {}, "vowels": {"fractions": (0.35, 0.25, 0.4)}}
SEEDS = 12


@functools.cache
def worm() -> tuple[Tensor, Tensor, Tensor]:
    """Return synapse counts (H, H), signed (negative out of GABA neurons), and who senses and who moves.

    Chemical synapses of the 280 somatic neurons; ``counts[i, j]`` for the edge j -> i.
    """
    graph = celegans(signed=True)
    place = {neuron: n for n, neuron in enumerate(graph)}
    counts = torch.zeros(len(place), len(place), dtype=torch.float64)
    for pre, post, edge in graph.edges(data=True):
        counts[place[post], place[pre]] = edge["weight"]
    kinds = [graph.nodes[neuron]["kind"] for neuron in graph]
    sensory, motor = (torch.tensor([kind == wanted for kind in kinds]) for wanted in ("sensory", "motor"))
    return counts, sensory, motor


def wiring(arm: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return which weights one network has (H, H), and what it starts from, of spectral radius 1.

    * "all to all": every weight, normal starting weights.
    * "worm": the worm's synapses only; "rewired": as many into and out of every neuron, drawn anew for each
      seed (Maslov and Sneppen); "random": as many in all, anywhere. Normal starting weights.
    * "worm start", "rewired start": every weight; from the synapse counts of the worm, or rewired with signs.
    """
    counts, _, _ = worm()
    rng = numpy_generator("wiring", seed)
    noise = torch.from_numpy(rng.normal(size=tuple(counts.shape)))
    everywhere = torch.ones_like(counts, dtype=torch.bool)
    if arm == "all to all":
        return everywhere, scaled(noise)
    if arm == "random":
        mask = torch.zeros(counts.numel(), dtype=torch.bool)
        mask[torch.from_numpy(rng.permutation(counts.numel()))[: int((counts != 0).sum())]] = True
        return mask.view_as(counts), scaled(noise * mask.view_as(counts))
    drawn = counts if arm.startswith("worm") else rewired(counts, rng)
    if arm.endswith("start"):
        return everywhere, scaled(drawn)
    return drawn != 0, scaled(noise * (drawn != 0))


def rewired(counts: Tensor, rng: np.random.Generator) -> Tensor:
    """Return as many synapses into and out of every neuron, with the counts' signs."""
    eye = torch.eye(len(counts), dtype=counts.dtype)
    return null_network(hl.Pathways(eye, counts, eye), "rewire", rng).w_rec


def scaled(weights: Tensor) -> Tensor:
    """Return weights of spectral radius 1."""
    return weights / torch.linalg.eigvals(weights).abs().max()


def errors(name: str, arm: str, *, seeds: int, steps: int) -> tuple[np.ndarray, float]:
    """Train an arm; return the test errors by seed, and how many recurrent weights a network has."""
    masks, starts = zip(*(wiring(arm, seed) for seed in range(seeds)), strict=True)
    counts, sensory, motor = worm()
    result = hl.train(
        hl.data.load(name, **SETS[name]),
        hl.recipes.none(),
        seeds=seeds,
        hidden=len(counts),
        steps=steps,
        batch=32,
        mask=torch.stack(masks),
        w_rec=torch.stack(starts),
        input_units=sensory,
        output_units=motor,
    )
    return result.metrics["test_error"].to_numpy(), float(result.metrics["nonzero"].mean())


def main() -> None:
    """Print one row a set and arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | wiring | networks | weights | test error [95 %] | minus rewired, paired |")
    print("|---|---|---|---|---|---|")
    for name in SETS:
        found = {arm: errors(name, arm, seeds=options.seeds, steps=options.steps) for arm in ARMS}
        for arm, (own, weights) in found.items():
            null = found["rewired start" if arm.endswith("start") else "rewired"][0]
            shown = [bootstrap_mean(values) for values in (own, own - null)]
            cells = (f"{m:.4f} [{low:.4f}, {high:.4f}]" for m, low, high in shown)
            print(f"| {name} | {arm} | {len(own)} | {weights:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
