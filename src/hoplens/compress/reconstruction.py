"""Remove weights of a row at the least cost to the outputs, and let the weights that stay make up for it.

Each row of a weight matrix is one unit's (or gate's) sum. With ``C`` the row's matrix of costs, the outputs
change by ``dw^T C dw`` when the row changes by ``dw``. Removing weight j and fitting the others anew costs
``w_j^2 / (C^-1)_jj`` and changes the row by ``-w_j C^-1[:, j] / (C^-1)_jj`` (optimal brain surgeon, Hassibi
and Stork 1993; row by row, Frantar and Alistarh 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.compress.sensitivity import Matrix

MIX = 0.1  # share of the row sums' own error in the costs; 0.1 did best of 0, 0.1, 0.5 and 1
RIDGE = 1e-3  # of the mean diagonal of the costs: results hardly change from 1e-4 to 1e-2
STEPS = 64  # weights of a row go in at most so many goes
ORDER = 1e-12  # relative rise of the costs from one weight of a row to the next


def cost_matrices(matrix: Matrix, rows: slice) -> Tensor:
    """Return the cost matrices of some rows, shape (r, C, C).

    ``C_i = sum_o E[J_i J_i^T] + 0.1 s_i sum_t E[h_t h_t^T]`` with ``J_i = sum_t (d y_o / d z_(t,i)) h_t`` the
    derivative of output o by row i: the row's block of the Gauss-Newton matrix. The second term, with ``s_i
    = E sum_o (d y_o / d z_i)^2``, keeps the row sums z themselves, as the first is blind to changes that the
    outputs only feel to second order.
    """
    jacobian = matrix.jacobian(rows)
    samples, columns = matrix.seen.shape[0], matrix.seen.shape[-1]
    costs = jacobian.mT @ jacobian / samples
    flat = matrix.seen.flatten(0, 1)
    reach = matrix.adjoint[..., rows].square().sum(0).mean((0, 1))
    costs += MIX * reach[:, None, None] * (flat.mT @ flat / samples)
    level = costs.diagonal(dim1=-2, dim2=-1).mean(-1)
    # a row that reaches nothing costs nothing: any positive number will do
    level = torch.where(level > 0, level * RIDGE, torch.ones_like(level))
    return costs + level[:, None, None] * torch.eye(columns, dtype=costs.dtype, device=costs.device)


def restricted(costs: Tensor, kept: Tensor) -> Tensor:
    """Return cost matrices with the identity in place of the weights that are gone."""
    keep = kept.to(costs.dtype)
    return costs * keep[..., :, None] * keep[..., None, :] + torch.diag_embed(1 - keep)


def removal_costs(
    weight: Tensor, costs: Tensor, kept: Tensor, pattern: tuple[int, int] | None = None
) -> Tensor:
    """Return what each weight costs when the weights of its row go one after the other, cheapest first.

    After each removal the row is fitted anew, so that the cost of a weight counts what the removed ones
    before it could still be replaced by. Along a row costs rise. Rows longer than `STEPS` lose several
    weights at once.

    ``weight`` (r, C); ``costs`` (r, C, C). ``kept`` (r, C): weights that are there; the others cost nothing.
    ``pattern``: stop when n of every m neighbours are left. Returns (r, C): infinite for weights that a
    pattern keeps.
    """
    columns = weight.shape[1]
    inverse = torch.linalg.inv(restricted(costs, kept))
    row, active = weight * kept, torch.ones_like(kept)
    cost, worst = torch.full_like(row, torch.inf), torch.zeros_like(row[:, :1])
    at_once = -(-columns // STEPS)
    place = torch.arange(at_once, dtype=row.dtype, device=row.device)
    while bool(active.any()):
        diagonal = inverse.diagonal(dim1=-2, dim2=-1)
        saliency = torch.where(active, row.square() / diagonal, torch.inf)
        if pattern is not None:
            saliency = _candidates(saliency, active, pattern)
        goes = saliency.topk(min(at_once, columns), dim=-1, largest=False, sorted=True)
        valid = torch.isfinite(goes.values)
        if not bool(valid.any()):
            break
        paid = torch.where(valid, goes.values, 0.0).cummax(-1).values
        paid = torch.maximum(paid, worst)
        worst = paid[:, -1:]
        # equal costs keep their order, so that no weight goes before the one that made it cheap
        ordered = paid * (1 + ORDER * place[: paid.shape[-1]])
        place = place + at_once
        cost.scatter_(-1, goes.indices, torch.where(valid, ordered, cost.gather(-1, goes.indices)))
        row, inverse = _remove(row, inverse, goes.indices, valid)
        gone = torch.zeros_like(active).scatter_(-1, goes.indices, valid)
        active = active & ~gone
    return cost


def _candidates(saliency: Tensor, active: Tensor, pattern: tuple[int, int]) -> Tensor:
    """Return the cheapest weight of each group that may still lose one; the others infinite."""
    n, m = pattern
    groups, left = saliency.unflatten(-1, (-1, m)), active.unflatten(-1, (-1, m)).sum(-1)
    best = groups.argmin(-1, keepdim=True)
    chosen = torch.full_like(groups, torch.inf).scatter_(-1, best, groups.gather(-1, best))
    return torch.where(left[..., None] > n, chosen, torch.inf).flatten(-2)


def _remove(row: Tensor, inverse: Tensor, places: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and inverses after the weights at ``places`` (r, k) are gone."""
    rows, columns = row.shape
    k = places.shape[-1]
    known = valid.to(row.dtype)
    columns_of = inverse.gather(-1, places[:, None].expand(rows, columns, k)) * known[:, None]
    pivot = columns_of.gather(-2, places[..., None].expand(rows, k, k)) * known[..., None]
    pivot = pivot + torch.diag_embed(1 - known)
    weights = torch.linalg.solve(pivot, columns_of.mT)  # (r, k, C)
    row = row - ((row.gather(-1, places) * known)[:, None] @ weights)[:, 0]
    inverse = inverse - columns_of @ weights
    return row.scatter(-1, places, torch.where(valid, 0.0, row.gather(-1, places))), inverse


def refit(weight: Tensor, costs: Tensor, kept: Tensor) -> Tensor:
    """Return the rows of least cost ``(w' - w)^T C (w' - w)`` among those that are zero outside ``kept``.

    ``weight`` (r, C); ``costs`` (r, C, C); ``kept`` (r, C).
    """
    wanted = (costs @ weight[..., None])[..., 0] * kept
    fitted: Tensor = torch.linalg.solve(restricted(costs, kept), wanted)
    return fitted * kept
