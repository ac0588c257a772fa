"""The worm's wiring as a prior: masks and starting weights, and their degree-matched random twins."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoplens.analysis.nulls.networks import null_network
from hoplens.data.connectome import celegans
from hoplens.graph.pathways import Pathways
from hoplens.seeds import numpy_generator

RADIUS = 1.0  # spectral radius of every starting matrix


class Wiring(NamedTuple):
    """What a network starts from.

    Attributes
    ----------
    mask : Tensor of bool, shape (H, H)
        Weights that exist, ``mask[i, j]`` for the edge j -> i.
    w_rec : Tensor, shape (H, H)
        Starting weights.
    """

    mask: Tensor
    w_rec: Tensor


@functools.cache
def worm() -> tuple[Tensor, Tensor, Tensor]:
    """Return synapse counts (H, H), signed (negative out of GABA neurons), and who senses and who moves.

    Chemical synapses of the 280 somatic neurons; ``counts[i, j]`` for the edge j -> i.
    """
    graph = celegans(signed=True)
    neurons = list(graph)
    place = {neuron: n for n, neuron in enumerate(neurons)}
    counts = torch.zeros(len(neurons), len(neurons), dtype=torch.float64)
    for pre, post, found in graph.edges(data=True):
        counts[place[post], place[pre]] = found["weight"]
    kinds = [graph.nodes[neuron]["kind"] for neuron in neurons]
    sensory, motor = (torch.tensor([kind == wanted for kind in kinds]) for wanted in ("sensory", "motor"))
    return counts, sensory, motor


def make_wiring(arm: str, seed: int) -> Wiring:
    """Return the wiring of one network.

    * "all to all": every weight exists, normal starting weights.
    * "worm": only the worm's synapses exist, normal starting weights.
    * "rewired": as many synapses into and out of every neuron, drawn anew for each seed (Maslov and Sneppen).
    * "random": as many synapses in all, anywhere.
    * "worm start", "rewired start": every weight exists; training starts from the synapse counts, signed, of
      the worm, or rewired with signs.

    All starting matrices have spectral radius 1.

    Parameters
    ----------
    arm : str
        One of these.
    seed : int
        Of the null model and of the starting weights.
    """
    counts, _, _ = worm()
    rng = numpy_generator("wiring", seed)
    noise = torch.from_numpy(rng.normal(size=tuple(counts.shape)))
    everywhere = torch.ones_like(counts, dtype=torch.bool)
    if arm == "all to all":
        return Wiring(everywhere, _scaled(noise))
    if arm == "random":
        order = torch.from_numpy(rng.permutation(counts.numel()))
        mask = torch.zeros(counts.numel(), dtype=torch.bool)
        mask[order[: int((counts != 0).sum())]] = True
        mask = mask.view_as(counts)
        return Wiring(mask, _scaled(noise * mask))
    drawn = counts if arm.startswith("worm") else _rewired(counts, rng)
    if arm.endswith("start"):
        return Wiring(everywhere, _scaled(drawn))
    return Wiring(drawn != 0, _scaled(noise * (drawn != 0)))


def _rewired(counts: Tensor, rng: np.random.Generator) -> Tensor:
    eye = torch.eye(len(counts), dtype=counts.dtype)
    return null_network(Pathways(eye, counts, eye), "rewire", rng).w_rec


def _scaled(weights: Tensor) -> Tensor:
    radius: Tensor = torch.linalg.eigvals(weights).abs().max()
    return weights * (RADIUS / radius)


__all__ = ["Wiring", "make_wiring", "worm"]
