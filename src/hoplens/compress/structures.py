"""Which weights stay, under a structure: single weights, tiles, or n of every m."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from hoplens.compress.scores import Criterion, add_rows, pathway_costs, tile_costs
from hoplens.compress.sensitivity import Matrix
from hoplens.errors import ParameterError, ShapeError, check_choice, check_count
from hoplens.graph.scores import top_mask

STRUCTURES = ("weight", "unit", "block", "n:m")
GONE = -1.0  # score of weights that are no longer there: they go first


def parse_structure(structure: str) -> tuple[str, tuple[int, int] | None]:
    """Return the kind of structure and its pattern (n, m): n of every m weights stay.

    Parameters
    ----------
    structure : str
        "weight", "unit", "block", or numbers such as "2:4".
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

    Parameters
    ----------
    criterion : Criterion
    matrix : Matrix
    amount : float
        Share of weights, or of tiles.
    kind : {"weight", "block", "n:m"}
    pattern : (n, m)
        For "n:m".
    block_size : int
        Side of a tile.
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


__all__ = ["STRUCTURES", "choose", "parse_structure"]
