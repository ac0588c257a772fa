"""Recurrent matrices without a cycle, up to rounding: their spectral radius is 0, whatever is computed.

The eigenvalues of a nilpotent matrix of H units move by up to ``eps**(1/H)`` times its size when the matrix
is rounded: 0.05 for a delay line of 12 units of weight 1. A radius below that may stand for 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MARGIN = 10.0  # on the rounding of the weights, and on the backward error of an eigenvalue solver
DOUBLE = torch.finfo(torch.float64).eps  # whatever the weights come in, eigenvalues are computed in float64
TURNS = (1, 1j, -1, -1j)  # where on the circle of the radius the resolvent is looked at


def rounds_to_nilpotent(w: Tensor, radius: Tensor, size: Tensor, eps: float) -> Tensor:
    """Say which matrices a change as small as rounding makes nilpotent; bool, shape (...,).

    A nilpotent matrix has traces ``tr W = tr W^2 = 0``, and after rounding by E every point up to about
    ``|E|^(1/H)`` is an eigenvalue of some matrix as near. So W is taken for nilpotent where its radius r lies
    below that bound, both traces vanish up to rounding, and ``z I - W`` is singular up to rounding all around
    the circle of radius ``(1 + 1/H) r``, that is, where ``r^H`` is not known within a factor e.

    ``w`` (..., H, H). ``radius`` (...,): computed from the eigenvalues. ``size`` (...,): what entries are
    rounded relative to: `matrix_size`, or that of the factors of W. ``eps``: of the dtype that the weights
    come in.
    """
    w = w.detach()
    radius = radius.detach()
    hidden = w.shape[-1]
    frobenius = torch.linalg.matrix_norm(w)
    # entries rounded one by one move W by eps * |W|_F, the solver by H * eps * |W|
    noise = MARGIN * (eps * torch.maximum(frobenius, size) + hidden * DOUBLE * size)
    trace = torch.diagonal(w, dim1=-2, dim2=-1).sum(-1).abs()
    square = (w * w.mT).sum((-2, -1)).abs()
    doubtful = (radius <= (hidden * eps) ** (1 / hidden) * size) & (radius > 0)
    doubtful &= (trace <= hidden**0.5 * noise) & (square <= 2 * frobenius * noise)
    found = torch.zeros_like(doubtful)
    for place in doubtful.nonzero().tolist():
        index = tuple(place)
        found[index] = _is_singular_around(w[index], float(radius[index]), float(noise[index]))
    return found


def matrix_size(w: Tensor) -> Tensor:
    """Return a bound of the spectral norm, shape (...,)."""
    rows, columns = (w.abs().sum(axis).amax(-1) for axis in (-1, -2))
    return torch.minimum(torch.linalg.matrix_norm(w), (rows * columns).sqrt())


def _is_singular_around(w: Tensor, radius: float, noise: float) -> bool:
    eye = torch.eye(len(w), dtype=torch.complex128, device=w.device)
    around = (1 + 1 / len(w)) * radius
    return all(float(torch.linalg.svdvals(turn * around * eye - w)[-1]) <= noise for turn in TURNS)


def is_acyclic(heads: np.ndarray, tails: np.ndarray, weights: np.ndarray, hidden: int, eps: float) -> bool:
    """Say whether the edges of a graph, those left out that are rounding beside the largest, form no cycle.

    ``heads``, ``tails`` (E,); ``weights`` (E,). ``hidden``: number of nodes. ``eps``: of the dtype that the
    weights come in.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = np.abs(weights)
    kept = size > eps * size.max(initial=0.0)
    heads, tails = heads[kept], tails[kept]
    if (heads == tails).any():
        return False
    graph = csr_array((np.ones(len(heads)), (heads, tails)), shape=(hidden, hidden))
    count, _ = connected_components(graph, connection="strong")
    return bool(count == hidden)
