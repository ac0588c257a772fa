"""Ways from a baseline to an input: which cells (time step, input) have moved at which point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hoplens.seeds import generator


@dataclass(frozen=True, eq=False)
class Segments:
    """Points to run and segments to linearise; C = L * I cells.

    Attributes
    ----------
    shares : Tensor, shape (Q, C)
        How far each cell has moved at each point, from 0 (baseline) to 1 (input). Point 0 is the baseline,
        the last one the input.
    start, end : Tensor of int64, shape (P,)
        The two points of each segment; the same point for a Jacobian.
    amount : Tensor, shape (P, C)
        How much of the whole difference of a cell a segment accounts for.
    order : Tensor of int64, shape (P,)
        Which way from baseline to input a segment belongs to, 0 .. M - 1.
    """

    shares: Tensor
    start: Tensor
    end: Tensor
    amount: Tensor
    order: Tensor

    @property
    def orders(self) -> int:
        """Number of ways, M."""
        return int(self.order[-1]) + 1

    def to(self, like: Tensor) -> Segments:
        """Return the segments in the dtype and on the device of a tensor."""
        index = [part.to(like.device) for part in (self.start, self.end, self.order)]
        return Segments(self.shares.to(like), index[0], index[1], self.amount.to(like), index[2])


def block_positions(cells: int, orders: int, blocks: int, seed: int) -> Tensor:
    """Return the block in which each cell moves in each order, shape (M, C), each order with its reverse.

    Cells are dealt into blocks of equal size at random. The reverse of an order costs no new draw and
    takes out the part of the error that is odd in the position.
    """
    source = generator("orders of cells", seed)
    drawn = []
    for _ in range((orders + 1) // 2):
        place = torch.empty(cells, dtype=torch.int64)
        place[torch.randperm(cells, generator=source)] = torch.arange(cells) * blocks // cells
        drawn += [place, blocks - 1 - place]
    return torch.stack(drawn[:orders])


def by_orders(positions: Tensor, blocks: int, refine: int) -> Segments:
    """Return the segments that move cells block by block, each block in ``refine`` equal steps.

    Parameters
    ----------
    positions : Tensor of int64, shape (M, C)
        From `block_positions`.
    blocks, refine : int
    """
    inner = torch.arange(1, blocks * refine, dtype=torch.float64) / refine  # progress in blocks
    moved = (inner[None, :, None] - positions[:, None, :].double()).clamp(0, 1)  # (M, n - 1, C)
    count, between = positions.shape[0], len(inner)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None].expand(2, positions.shape[1])
    shares = torch.cat([ends[:1], moved.flatten(0, 1), ends[1:]])
    last = count * between + 1
    chains = [[0, *range(1 + m * between, 1 + (m + 1) * between), last] for m in range(count)]
    start = torch.tensor([chain[n] for chain in chains for n in range(between + 1)])
    end = torch.tensor([chain[n + 1] for chain in chains for n in range(between + 1)])
    order = torch.arange(count).repeat_interleave(between + 1)
    return Segments(shares, start, end, shares[end] - shares[start], order)


def by_line(cells: int, steps: int) -> Segments:
    """Return the segments of the straight line in equal steps, each a secant."""
    return by_orders(torch.zeros(1, cells, dtype=torch.int64), 1, steps)


def by_nodes(cells: int, nodes: int) -> Segments:
    """Return the segments of Jacobians at Gauss-Legendre nodes of the straight line: integrated gradients."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    inner = torch.as_tensor(0.5 + 0.5 * places)
    shares = torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])[:, None].expand(-1, cells)
    at = torch.arange(1, nodes + 1)
    amount = torch.as_tensor(0.5 * weights)[:, None].expand(-1, cells)
    return Segments(shares, at, at, amount, torch.zeros(nodes, dtype=torch.int64))


__all__ = ["Segments", "block_positions", "by_line", "by_nodes", "by_orders"]
