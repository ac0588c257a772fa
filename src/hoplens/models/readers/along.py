"""The graph of what flows: Jacobians of the step, averaged along sequences."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hoplens.errors import UnsupportedModelError
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import Cell, WeightCell
from hoplens.models.rollout import Batch, run
from hoplens.models.stack import Point, Stack, assemble

CHUNK_BYTES = 1 << 26  # of the slopes of some samples at once


def mean_graph(stack: Stack, batch: Batch, *, by_step: bool = False) -> Pathways:
    """Return the graph of the mean Jacobian of a step over all valid steps of all samples.

    For cells made of weights the Jacobian is linear in the slopes, so that this is the graph of the mean
    slopes. With ``by_step`` one graph for each step, leading axis L, counted back from the last valid step of
    each sample: the mean over the samples that have it.
    """
    if by_step and stack.bidirectional:
        raise UnsupportedModelError(
            "a bidirectional network has no graph of each step, as its halves run against each other; use "
            'at="flow"'
        )
    steps = int(batch.lengths.max())  # no sample has a step beyond
    batch = Batch(batch.inputs[:, :steps], batch.lengths)
    axis = steps if by_step else 1
    sums: dict[int, list[Tensor]] = {}  # of each cell
    count = torch.zeros(axis, device=batch.inputs.device, dtype=torch.float64)
    for part in _chunks(stack, batch):
        trace = run(stack, part)
        count += part.mask.sum(0) if by_step else part.mask.sum()  # as many samples have lag n as step n
        with torch.no_grad():
            for n, (cell, point) in enumerate(zip(stack.cells, trace.points, strict=True)):
                added = [_added(value.double(), part, by_step) for value in _points(cell, point)]
                sums[n] = [a + b for a, b in zip(sums[n], added, strict=True)] if n in sums else added
    blocks = []
    for n, cell in enumerate(stack.cells):
        means = [value / count.view(-1, *[1] * (value.dim() - 1)) for value in sums[n]]
        means = [(mean if by_step else mean[0]).to(batch.inputs) for mean in means]
        blocks.append(_jacobian(cell, means))
    what = "mean Jacobian of each step" if by_step else "mean Jacobian of the step"
    net = assemble(stack, blocks, f"{what} of {stack.label} along {len(batch.inputs)} sequences")
    if not by_step:
        return net
    return Pathways(
        net.w_in,
        net.w_rec,
        net.w_out,
        hidden_names=net.hidden_names,
        hidden_modules=net.hidden_modules,
        layers=net.layers,
        leak=net.leak,
        steps=True,
        provenance=f"{net.provenance}, counted back from the read-out",
    )


def mean_point(stack: Stack, batch: Batch) -> Point:
    """Return the mean state and input of every cell over all valid steps of all samples."""
    sums: list[list[Tensor]] = []
    for part in _chunks(stack, batch):
        points = run(stack, part).points
        added = [[_added(value.double(), part, by_step=False)[0] for value in point] for point in points]
        pairs = zip(sums, added, strict=True)
        sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs] if sums else added
    count = batch.lengths.sum()
    return [((state / count).to(batch.inputs), (x / count).to(batch.inputs)) for state, x in sums]


def _added(values: Tensor, batch: Batch, by_step: bool) -> Tensor:
    """Return values (B, L, ...) summed over samples and valid steps, (1, ...), or by lag, (L, ...)."""
    if not by_step:
        return torch.einsum("bl,bl...->...", batch.mask.to(values), values)[None]
    steps = torch.arange(values.shape[1], device=values.device)
    places = batch.lengths[:, None] - 1 - steps  # (B, L): the step of each lag
    rows = torch.arange(len(values), device=values.device)[:, None]
    return torch.einsum("bl,bl...->l...", (places >= 0).to(values), values[rows, places.clamp_min(0)])


def _chunks(stack: Stack, batch: Batch) -> Iterator[Batch]:
    width = sum(
        cell.n_state * (len(cell.from_input) + 2) if isinstance(cell, WeightCell)
        else cell.n_state * (cell.n_state + cell.n_inputs)
        for cell in stack.cells
    )  # fmt: skip
    rows = max(1, CHUNK_BYTES // (8 * width * batch.inputs.shape[1]))
    for start in range(0, len(batch.inputs), rows):
        part = slice(start, start + rows)
        yield Batch(batch.inputs[part], batch.lengths[part])


def _points(cell: Cell, point: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Return what is averaged, each (B, L, ...): slopes, or the Jacobians where a cell has only a step."""
    saved = cell.save(*point)
    if isinstance(cell, WeightCell):
        return saved
    rows = torch.eye(cell.n_state, dtype=point[0].dtype, device=point[0].device)
    return cell.pull(saved, rows.expand(*point[0].shape[:-1], *rows.shape))


def _jacobian(cell: Cell, means: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the blocks (..., S, S) and (..., S, I) of mean slopes, differentiable by the weights."""
    if not isinstance(cell, WeightCell):
        return means[0], means[1]
    rows = torch.eye(cell.n_state, dtype=means[0].dtype, device=means[0].device)
    return cell.pull(tuple(means), rows.expand(*means[0].shape[:-3], *rows.shape))


__all__ = ["mean_graph", "mean_point"]
