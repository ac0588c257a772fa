"""What removing a weight costs, by four criteria, and which weights stay under a structure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.compress.reconstruction import cost_matrices, refit, removal_costs, restricted
from hoplens.compress.sensitivity import Matrix, sensitivities
from hoplens.compress.tuning import loss
from hoplens.errors import ParameterError, ShapeError, check_choice, check_count
from hoplens.graph.scores import top_mask
from hoplens.models.recurrent_model import RecurrentModel

CRITERIA = ("pathway", "magnitude", "taylor", "random")
STRUCTURES = ("weight", "unit", "block", "n:m")
GONE = -1.0  # score of weights that are no longer there: they go first


@dataclass(frozen=True, eq=False)
class Criterion:
    """How weights are scored.

    ``inputs`` (B, L, I): sequences that pathway and Taylor scores are measured on. ``targets``: for Taylor
    scores. ``generator``: of random scores.
    ``seed``: of the mixtures of outputs, see `sensitivities`.
    """

    by: str
    inputs: Tensor
    targets: Tensor | None
    generator: torch.Generator
    seed: int = 0

    def matrices(self, model: RecurrentModel) -> dict[str, Matrix]:
        """Return the weight matrices with what the criterion needs to know of them."""
        if self.by != "taylor":
            return sensitivities(model, self.inputs, seed=self.seed)
        assert self.targets is not None

        def objective(outputs: Tensor) -> Tensor:
            assert self.targets is not None
            return loss(outputs, self.targets) * len(outputs)

        return sensitivities(model, self.inputs, objective=objective)

    def plain(self, matrix: Matrix) -> Tensor:
        """Return magnitude, Taylor or random scores, shape (R, C).

        Magnitude is ``|W|``; Taylor ``W^2 mean_s (d loss_s / d W)^2`` over samples s (Molchanov et al.
        2019): in our comparison better than ``|W d loss / d W|`` of the mean loss, which is near zero
        everywhere once a network is trained.
        """
        weight = matrix.weight
        if self.by == "magnitude":
            return weight.abs()
        if self.by == "random":
            drawn = torch.rand(weight.shape, generator=self.generator, dtype=torch.float64)
            return drawn.to(weight.device)
        slopes = [matrix.jacobian(rows).square().mean(1) for rows in matrix.chunks()]
        return weight.square() * torch.cat(slopes)


def pathway_costs(matrix: Matrix, kept: Tensor, pattern: tuple[int, int] | None = None) -> Tensor:
    """Return what each weight costs in outputs when its row is thinned to the end, shape (R, C).

    See `reconstruction`: walks from the data through the edge and on to the outputs, with what the row's
    other edges can make up for taken off.
    """
    parts = [
        removal_costs(matrix.weight[rows], cost_matrices(matrix, rows), kept[rows], pattern)
        for rows in matrix.chunks()
    ]
    return torch.cat(parts)


def tile_costs(matrix: Matrix, kept: Tensor, size: int) -> Tensor:
    """Return what each tile of ``size`` x ``size`` weights costs if it goes alone and its rows are refitted.

    ``sum_rows w_g^T ((C^-1)_gg)^-1 w_g`` with g the tile's columns; shape (tiles down, tiles across).
    """
    columns = matrix.weight.shape[1]
    parts = []
    for rows in matrix.chunks():
        weight = matrix.weight[rows] * kept[rows]
        inverse = torch.linalg.inv(restricted(cost_matrices(matrix, rows), kept[rows]))
        across = []
        for start in range(0, columns, size):
            part = slice(start, min(columns, start + size))
            own = weight[:, part]
            across.append((own * torch.linalg.solve(inverse[:, part, part], own)).sum(-1))
        parts.append(torch.stack(across, dim=-1))
    return add_rows(torch.cat(parts), size)


def add_rows(values: Tensor, size: int) -> Tensor:
    """Return the sums of every ``size`` rows, the last ones of what is left."""
    return torch.stack([part.sum(0) for part in values.split(size)])


def compensated(matrix: Matrix, kept: Tensor) -> Tensor:
    """Return the matrix with only ``kept`` weights, each row fitted anew to the outputs."""
    parts = [refit(matrix.weight[rows], cost_matrices(matrix, rows), kept[rows]) for rows in matrix.chunks()]
    return torch.cat(parts)


def parse_structure(structure: str) -> tuple[str, tuple[int, int] | None]:
    """Return the kind of structure and its pattern (n, m): n of every m weights stay.

    ``structure``: "weight", "unit", "block", or numbers such as "2:4".
    """
    found = re.fullmatch(r"(\d+):(\d+)", str(structure))
    if found is None:
        if structure == "n:m":
            raise ParameterError('structure "n:m" needs numbers: "2:4" keeps 2 of every 4 weights of a row')
        return check_choice("structure", structure, STRUCTURES), None
    n, m = int(found[1]), int(found[2])
    if not 0 < n < m:
        raise ParameterError(f"structure n:m keeps n of every m weights, 0 < n < m, got {structure!r}")
    return "n:m", (n, m)


def choose(
    criterion: Criterion,
    matrix: Matrix,
    amount: float,
    kind: str,
    *,
    pattern: tuple[int, int] | None = None,
    block_size: int = 4,
) -> Tensor:
    """Return which weights of a matrix stay, bool of shape (R, C).

    Weights that are zero count as gone; they are part of the share that goes.
    """
    kept = matrix.weight != 0
    if kind == "n:m":
        assert pattern is not None
        return _of_each_group(criterion, matrix, kept, pattern) & kept
    if kind == "block":
        return _tiles(criterion, matrix, kept, amount, check_count("block_size", block_size)) & kept
    scores = pathway_costs(matrix, kept) if criterion.by == "pathway" else criterion.plain(matrix)
    return top_mask(torch.where(kept, scores, GONE), amount) & kept


def _of_each_group(criterion: Criterion, matrix: Matrix, kept: Tensor, pattern: tuple[int, int]) -> Tensor:
    n, m = pattern
    if matrix.weight.shape[1] % m:
        raise ShapeError(
            f"{n}:{m} needs rows of a multiple of {m} weights, but {matrix.name} has "
            f"{matrix.weight.shape[1]}; take another pattern or leave its block out of blocks="
        )
    if criterion.by == "pathway":
        return pathway_costs(matrix, kept, pattern).isinf()
    groups = torch.where(kept, criterion.plain(matrix), GONE).unflatten(-1, (-1, m))
    # equal scores go by position
    rank = groups.argsort(dim=-1, stable=True).argsort(dim=-1)
    stays: Tensor = rank >= m - n
    return stays.flatten(-2)


def _tiles(criterion: Criterion, matrix: Matrix, kept: Tensor, amount: float, size: int) -> Tensor:
    rows, columns = kept.shape
    if size > max(rows, columns):
        raise ParameterError(
            f"block_size must be at most {max(rows, columns)}, as {matrix.name} is {rows} x {columns}, "
            f"got {size}"
        )
    if criterion.by == "pathway":
        scores = tile_costs(matrix, kept, size)
    else:
        power = 2 if criterion.by == "magnitude" else 1  # a tile's magnitude is its norm
        scores = add_rows(add_rows((criterion.plain(matrix) ** power * kept).mT, size).mT, size)
    alive = add_rows(add_rows(kept.double().mT, size).mT, size) > 0
    stays = top_mask(torch.where(alive, scores, GONE), amount)
    return stays.repeat_interleave(size, 0).repeat_interleave(size, 1)[:rows, :columns]
