"""Spectral radii: all eigenvalues of small graphs, the leading one of large ones; graphs of another radius.

The eigenvalues of a nilpotent matrix of H units move by up to ``eps**(1/H)`` times its size when the matrix
is rounded: 0.05 for a delay line of 12 units of weight 1. A radius below that may stand for 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ConvergenceError, ParameterError, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import Leak, LowRank
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.graph.solvers import to_scipy
from hoplens.seeds import numpy_generator

DENSE_LIMIT = 1024  # hidden units up to which all eigenvalues are computed
PATIENT_LIMIT = 4096  # dense ones up to which all are, where the leading one does not stand out
# The eigenvalue solver fails to converge where products of entries underflow. An entry this far below the
# largest one changes the matrix by far less than rounding does, so that nothing is lost without it.
NEGLIGIBLE = 1e-60
TOLERANCE = 1e-8
KRYLOV_VECTORS = 60
RESTARTS = 40
MARGIN = 10.0  # on the rounding of the weights, and on the backward error of an eigenvalue solver
DOUBLE = torch.finfo(torch.float64).eps  # whatever the weights come in, eigenvalues are computed in float64
TURNS = (1, 1j, -1, -1j)  # where on the circle of the radius the resolvent is looked at


@dataclass(frozen=True)
class LeadingEigenvalue:
    """The eigenvalue of largest modulus, found iteratively.

    Attributes
    ----------
    value : complex
        The eigenvalue.
    residual : float
        ``|W x - value x| / |value|`` for the unit eigenvector x found: W has ``value`` as exact eigenvalue
        after a change of relative size ``residual``.
    products : int
        Products with W that it took.
    """

    value: complex
    residual: float
    products: int

    @property
    def radius(self) -> float:
        """The spectral radius."""
        return abs(self.value)


@takes_models
def leading_eigenvalue(net: Pathways, *, tolerance: float = TOLERANCE) -> LeadingEigenvalue:
    """Find the eigenvalue of largest modulus of ``w_rec`` by implicitly restarted Arnoldi iterations.

    Parameters
    ----------
    net : Pathways
        One network, dense, sparse or of low rank; at least 3 hidden units.
    tolerance : float, default 1e-8
        Relative residual wanted. It bounds the error of the eigenvalue of a normal matrix; one of a
        non-normal matrix may be off by the condition of its eigenvectors times that.

    Raises
    ------
    ConvergenceError
        If the iterations do not converge.
    """
    if net.batch_shape or net.n_hidden < 3:
        raise ParameterError(
            f"leading_eigenvalue takes one network of 3 or more hidden units, got {net!r}; "
            "use spectral_radius"
        )
    if net.factors is not None:
        u, v = (part.detach().double().cpu().numpy() for part in net.factors[:2])
        own = net.factors.diagonal
        kept: Any = 0.0 if own is None else own.detach().double().cpu().numpy()
        return _arnoldi(lambda x: kept * x + u @ (v.T @ x), net.n_hidden, tolerance)
    matrix: Any = to_scipy(net.w_rec) if net.is_sparse else net.w_rec.detach().double().cpu().numpy()
    return _arnoldi(lambda x: matrix @ x, net.n_hidden, tolerance)


def _arnoldi(product: Callable[[Any], Any], hidden: int, tolerance: float) -> LeadingEigenvalue:
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

    count = 0

    def counted(x: Any) -> Any:
        nonlocal count
        count += 1
        return product(x)

    operator = LinearOperator((hidden, hidden), matvec=counted, dtype=np.float64)
    start = numpy_generator("start of ARPACK", 0).standard_normal(hidden)  # ARPACK's own start is random
    try:
        values, vectors = eigs(
            operator,
            k=1,
            which="LM",
            v0=start,
            ncv=min(hidden, KRYLOV_VECTORS),
            maxiter=RESTARTS,
            tol=tolerance,
        )
    except ArpackNoConvergence:
        raise ConvergenceError(
            f"the leading eigenvalue did not converge in {count} products, as happens where many "
            "have nearly the same modulus; use leading_eigenvalue(net, tolerance=0.1) and pass radius= on"
        ) from None
    except ArpackError:
        # the start vector is mapped to zero: a graph without cycles, up to rounding
        return LeadingEigenvalue(0j, 0.0, count)
    value, vector = complex(values[0]), vectors[:, 0]
    image = product(vector.real) + 1j * product(vector.imag)
    size = abs(value) or 1.0
    return LeadingEigenvalue(value, float(np.linalg.norm(image - value * vector)) / size, count)


@takes_models
def spectral_radius(net: Pathways) -> Tensor:
    """Return the largest eigenvalue modulus of the graph, shape (...,), which is that of ``w_rec``.

    Computed in float64; returned in the dtype of the weights. Up to 1024 hidden units, and wherever a
    gradient is wanted of a dense matrix, from all eigenvalues; beyond, by `leading_eigenvalue`, which also
    gives the residual. 0 for a graph without cycles, and for one that rounding cannot tell from a nilpotent
    one: the eigenvalues of a delay line move by ``eps**(1/H)`` times its size with a weight's last digit,
    so that what is computed below that may be nothing but rounding. eps is that of the weights' dtype.

    Parameters
    ----------
    net : Pathways
        Any leading axes.

    Raises
    ------
    ParameterError
        If a gradient is wanted through the radius of a large sparse matrix.
    ConvergenceError
        If the eigenvalues are not found.
    """
    return exact_radius(net).to(net.w_in.dtype)


def exact_radius(net: Pathways) -> Tensor:
    """Return the spectral radius in float64, shape (...,)."""
    net.check_finite()
    eps = torch.finfo(net.w_in.dtype).eps
    if net.factors is not None and net.factors.diagonal is None:
        u, v = net.factors.u.double(), net.factors.v.double()
        # v^T u has the non-zero eigenvalues of u v^T, but the rounding of both
        return dense_radius(v.mT @ u, eps, torch.linalg.matrix_norm(u) * torch.linalg.matrix_norm(v))
    # never ask a factored network for its w_rec before it is known to be small: that would form it
    parts = (net.w_rec,) if net.factors is None else net.factors
    wants_grad = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
    if net.n_hidden <= DENSE_LIMIT or (wants_grad and not net.is_sparse):
        w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
        return dense_radius(w_rec, eps)
    if wants_grad:
        raise ParameterError(
            "the spectral radius of a large sparse w_rec has no gradient here; pass normalise=False or "
            "net.detach()"
        )
    if net.is_sparse:
        edges = to_scipy(net.w_rec).tocoo()
        if is_acyclic(edges.row, edges.col, edges.data, net.n_hidden, eps):
            return net.w_in.new_zeros((), dtype=torch.float64)
    if net.is_sparse or net.factors is not None:
        return net.w_in.new_tensor(leading_eigenvalue(net).radius, dtype=torch.float64)
    flat = net.w_rec.reshape(-1, *net.w_rec.shape[-2:])
    return torch.stack([_leading_radius(w, eps) for w in flat]).to(net.w_in.device).reshape(net.batch_shape)


def dense_radius(matrix: Tensor, eps: float, size: Tensor | None = None) -> Tensor:
    """Return the spectral radius of dense square matrices in float64, shape (...,).

    Scaled first: LAPACK fails on matrices whose entries are all tiny or differ by hundreds of orders.

    ``matrix`` (..., n, n). ``eps``: of the dtype that the weights come in: matrices that rounding makes
    nilpotent have radius 0. ``size`` (...,), optional: what the entries are rounded relative to; default the
    size of the matrix.
    """
    wide = matrix.double()
    largest = wide.detach().abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    relative = wide / scale
    relative = torch.where(relative.abs() < NEGLIGIBLE, torch.zeros_like(relative), relative)
    try:
        every: Tensor = torch.linalg.eigvals(relative)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ConvergenceError(
            f"the eigenvalues of w_rec could not be found ({error}); "
            "rescale its rows and columns to similar sizes"
        ) from None
    radius = every.abs().amax(dim=-1)
    own = matrix_size(relative.detach()) if size is None else size.detach() / scale[..., 0, 0]
    none = (radius == 0) | rounds_to_nilpotent(relative, radius, own, eps)
    if radius.requires_grad and bool(none.any()):  # eigenvalues of a defective matrix have no gradient
        eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
        radius = torch.linalg.eigvals(torch.where(none[..., None, None], eye, relative)).abs().amax(dim=-1)
    return torch.where(none, torch.zeros_like(radius), radius) * scale[..., 0, 0]


def _leading_radius(w_rec: Tensor, eps: float) -> Tensor:
    matrix = w_rec.detach().double().cpu()
    heads, tails = matrix.numpy().nonzero()
    if is_acyclic(heads, tails, matrix.numpy()[heads, tails], len(matrix), eps):
        return matrix.new_zeros(())
    try:
        found = _arnoldi(lambda x: matrix.numpy() @ x, matrix.shape[0], TOLERANCE)
    except ConvergenceError:
        if matrix.shape[0] > PATIENT_LIMIT:
            raise
        return dense_radius(matrix, eps)  # minutes, but certain
    return torch.tensor(found.radius, dtype=torch.float64)


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


@takes_models
def rescale(net: Pathways, radius: float) -> Pathways:
    """Return the network with its recurrent weights divided so that they have a given spectral radius.

    All walks of one hop number change by one factor, so shares within a hop stay and only the balance
    between hops changes: H_k is multiplied by ``(radius / rho)^(k - 2)``. Needed where weights are counts,
    such as synapses: with their own radius of 30, each hop counts 30 times the one before.

    Parameters
    ----------
    net : Pathways
        Any leading axes; sparse and low-rank stay so.
    radius : float
        The spectral radius wanted, above 0.

    Returns
    -------
    Pathways
        ``provenance`` says what was done.

    Raises
    ------
    ParameterError
        If the network has no cycle, so that its spectral radius is 0 and nothing can be scaled to it.
    """
    wanted = check_number("radius", radius, above=0.0)
    own = spectral_radius(net).to(torch.float64)
    if not bool((own > 0).all()):
        raise ParameterError("w_rec has no cycle (spectral radius 0), so no factor gives it another radius")
    factor = (wanted / own).to(net.w_in.dtype)
    w_rec: Tensor | LowRank
    if net.factors is not None:
        u, v, kept = net.factors
        w_rec = LowRank(u * factor[..., None, None], v, None if kept is None else kept * factor[..., None])
    else:
        w_rec = net.w_rec * (factor if net.is_sparse else factor[..., None, None])
    leak = None if net.leak is None else Leak(*(part * factor[..., None] for part in net.leak))
    provenance = f"{net.provenance}, w_rec scaled to spectral radius {wanted:g}"
    return replace_blocks(net, net.w_in, w_rec, net.w_out, net.w_skip, leak=leak, provenance=provenance)
