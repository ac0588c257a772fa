"""What a pathway penalty will cost, and the choice of method that follows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hoplens.graph.chain import KEEP_BYTES
from hoplens.graph.pathways import Pathways

# Measured on CPU cores of 2023: time of a call and flops a second of products of many rows. Only their
# product matters, and only where both methods are close.
CALL_SECONDS = {"cpu": 2.3e-6, "cuda": 5e-6}
FLOPS_A_SECOND = {"cpu": 1e11, "cuda": 1e13}
CALLS_A_DOUBLING = 3.5


@dataclass(frozen=True)
class PenaltyCost:
    """How a penalty is computed for a network, and what a call with its gradient costs.

    Attributes
    ----------
    method : {"one hop at a time", "repeated squaring", "sparse products", "linear solve"}
        The algorithm chosen.
    side : {"inputs", "outputs"}
        Where the recursion starts: the side with fewer nodes.
    hops : int or None
        Number of hop maps; None for all.
    terminals : int
        Nodes on that side that a call follows (fewer than there are where they are sampled).
    flops : float
        Floating-point operations of one exact value and its gradient.
    traffic : float
        Bytes of W_rec read and written for it, caches left aside.
    kept : float
        Bytes kept between forward and backward pass.
    every : int
        One call in so many computes anything.
    """

    method: str
    side: str
    hops: int | None
    terminals: int
    flops: float
    traffic: float
    kept: float
    every: int

    def __str__(self) -> str:
        hops = "all hops" if self.hops is None else f"{self.hops} hops"
        often = "each call" if self.every == 1 else f"one call in {self.every}"
        return (
            f"{self.method} from {self.terminals} {self.side}, {hops}, {often}: "
            f"{self.flops / 1e6:.4g} Mflop, {self.traffic / 2**20:.4g} MiB of W_rec moved, "
            f"{self.kept / 2**20:.4g} MiB kept; on average {self.flops / self.every / 1e6:.4g} Mflop a call"
        )


def use_doubling(length: int, hidden: int, terminals: int, networks: int, device: str) -> bool:
    """Return whether repeated squaring beats one hop at a time."""
    if networks != 1 or length < 8 or terminals > hidden:
        return False
    levels = math.ceil(math.log2(length))
    call = CALL_SECONDS.get(device, CALL_SECONDS["cuda"])
    speed = FLOPS_A_SECOND.get(device, FLOPS_A_SECOND["cuda"])
    squared = levels * CALLS_A_DOUBLING * call + 6 * (levels - 1) * hidden**3 / speed
    return squared < 2 * length * call


def make_plan(net: Pathways, length: int | None, *, every: int = 1, sample: int | None = None) -> PenaltyCost:
    """Return the plan for a penalty over ``length`` hop maps (None: the full resolvent)."""
    networks = math.prod(net.batch_shape)
    h, size = net.n_hidden, max(4, net.w_in.element_size())
    side = "inputs" if starts_at_inputs(net) else "outputs"
    c = min(net.n_inputs, net.n_outputs)
    c = c if sample is None else min(sample, c)
    edges = float(net.w_rec.values().numel()) if net.is_sparse else float(networks * h * h)
    if length is None:
        flops = networks * (2 / 3 * h**3 + 8 * c * h**2)
        return PenaltyCost("linear solve", side, None, c, flops, 4 * edges * size, edges * size, every)
    flops, passes = 6.0 * length * c * edges, 2.0 * length + 1
    kept = float(length * networks * c * h * size)
    method = "sparse products" if net.is_sparse else "one hop at a time"
    if net.is_sparse:
        passes = 3.0 * length
    elif use_doubling(length, h, c, networks, net.w_in.device.type):
        method, levels = "repeated squaring", math.ceil(math.log2(length))
        flops += 6.0 * (levels - 1) * h**3
        passes = 5.0 * levels
        kept += levels * edges * size
    if method != "repeated squaring" and kept > max(KEEP_BYTES, edges * size):
        root = math.isqrt(length - 1) + 1
        flops, passes, kept = flops * 4 / 3, passes * 4 / 3, kept * 2 * root / length
    return PenaltyCost(method, side, length, c, flops, passes * edges * size, kept, every)


def starts_at_inputs(net: Pathways) -> bool:
    """Return whether the recursion starts at the inputs; ties go where no transpose is needed."""
    if net.w_rec.layout == torch.strided:
        return net.n_inputs < net.n_outputs
    return net.n_inputs <= net.n_outputs


__all__ = ["PenaltyCost", "make_plan", "starts_at_inputs", "use_doubling"]
