"""Linear systems ``(I - a W) X = B`` that a resolvent is made of, and certificates of their solutions.

Everything here is float64 and free of autograd; W is dense, sparse, or low rank plus a diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ConvergenceError
from hoplens.seeds import generator

PROBES = 10  # Gaussian vectors of a norm bound that fails with probability 10^-PROBES
PROBE_FACTOR = 10.0 * math.sqrt(2.0 / math.pi)
TOLERANCE = 1e-11
RESTART = 30
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """``A = I - a W`` as operations on float64 columns (H, c).

    ``apply``, ``apply_t``: ``A @ columns`` and ``A.T @ columns``. ``solve``, ``solve_t``: their inverses, to
    some accuracy. ``contraction``: an upper bound of the spectral norm of ``a |W|``, hence of ``a W``.
    ``rounding``: bound of the relative rounding error of an entry of ``apply``.
    """

    apply: Product
    apply_t: Product
    solve: Product
    solve_t: Product
    contraction: float
    rounding: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """A certified value ``W_out A^-1 W_in``.

    ``value`` (O, I). ``bound`` (O, I): no entry of ``value`` is further from the truth. ``residual``: ``|A X
    - W_in| / |W_in|``, Frobenius. ``kind``: what the bound on ``|A^-1|`` rests on.
    """

    value: Tensor
    bound: Tensor
    residual: float
    kind: str


def certify(
    system: System, w_in: Tensor, w_out: Tensor, *, inverse: tuple[float, str] | None = None
) -> Certificate:
    """Solve from both sides and bound what is left.

    With ``R = W_in - A X`` and ``S = W_out^T - A^T Y``, the exact identity
    ``W_out A^-1 W_in = W_out X + Y^T R + S^T A^-1 R`` gives a corrected value ``W_out X + Y^T R`` whose
    error is at most ``|S_o| |A^-1| |R_i|`` in entry (o, i): second order in the two residuals. Rounding
    errors of the residuals and of the value are added.

    ``w_in`` (H, I), float64; ``w_out`` (O, H), float64. ``inverse``: a known bound of ``|A^-1|`` and what it
    rests on.
    """
    x, y = system.solve(w_in), system.solve_t(w_out.mT)
    r, s = w_in - system.apply(x), w_out.mT - system.apply_t(y)
    size, kind = inverse or bound_inverse(system, w_in.shape[0])
    # rounding errors of a residual are at most a share of what was added up; entries are bounded by norms
    amplify = 1.0 + system.contraction
    r_size = _norms(r) + system.rounding * (_norms(w_in) + amplify * _norms(x))
    s_size = _norms(s) + system.rounding * (_norms(w_out.mT) + amplify * _norms(y))
    value = w_out @ x + y.mT @ r
    dot = (w_in.shape[0] + 3) * torch.finfo(torch.float64).eps
    bound = size * s_size[:, None] * r_size + dot * (w_out.abs() @ x.abs() + y.mT.abs() @ r.abs())
    whole = float(torch.linalg.matrix_norm(w_in))
    residual = float(torch.linalg.matrix_norm(r)) / whole if whole else 0.0
    return Certificate(value, bound, residual, kind)


def _norms(columns: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(columns, dim=0)
    return norms


def bound_inverse(system: System, hidden: int) -> tuple[float, str]:
    """Return an upper bound of the spectral norm of A^-1 and what it rests on.

    ``1 / (1 - |aW|)`` where ``|aW| < 1``. Otherwise Gaussian probes: ``|B| <= 10 sqrt(2/pi) max |B w_j|``
    over 10 vectors but with probability 1e-10 (Halko, Martinsson and Tropp 2011, Lemma 4.1), with the
    residuals of the ten solves accounted for.
    """
    if system.contraction < 1.0:
        return 1.0 / (1.0 - system.contraction), "norm of a W below 1"
    source = generator("random probes", 0)
    probes = torch.randn(hidden, PROBES, generator=source, dtype=torch.float64)
    found = system.solve(probes)
    left = PROBE_FACTOR * float(_norms(probes - system.apply(found)).max())
    if left >= 1.0:
        return math.inf, "none: the probes were not solved"
    return PROBE_FACTOR * float(_norms(found).max()) / (
        1.0 - left
    ), "ten Gaussian probes, failing once in 1e10"


def dense_system(w_rec: Tensor, a: float) -> System:
    """Return the system of a dense matrix, solved by LU."""
    w = w_rec.detach().double().cpu()
    matrix = torch.eye(w.shape[0], dtype=torch.float64) - a * w
    lu, pivots = torch.linalg.lu_factor(matrix)
    return System(
        lambda x: matrix @ x,
        lambda x: matrix.mT @ x,
        lambda b: torch.linalg.lu_solve(lu, pivots, b),
        lambda b: torch.linalg.lu_solve(lu, pivots, b, adjoint=True),
        a * _norm_bound(w.abs().sum(0), w.abs().sum(1)),
        _rounding(w.shape[0]),
    )


def krylov_system(w_rec: Any, a: float, *, tolerance: float = TOLERANCE) -> System:
    """Return the system of a dense tensor or SciPy matrix, solved by preconditioned Krylov iterations."""
    if isinstance(w_rec, Tensor):
        w: Any = w_rec.detach().double().cpu().numpy()
        columns, rows = np.abs(w).sum(axis=0), np.abs(w).sum(axis=1)
        widest = w.shape[0]
    else:
        w = w_rec
        columns, rows = np.asarray(abs(w).sum(axis=0)).ravel(), np.asarray(abs(w).sum(axis=1)).ravel()
        widest = int(np.diff(w.indptr).max(initial=0))
        widest = max(widest, int(np.bincount(w.indices, minlength=1).max(initial=0)))
    w_t = w.T if isinstance(w, np.ndarray) else w.T.tocsr()
    diagonal = 1.0 - a * w.diagonal()

    def product(matrix: Any) -> Product:
        def apply(x: Tensor) -> Tensor:
            return x - a * torch.from_numpy(np.ascontiguousarray(matrix @ x.numpy()))

        return apply

    def solver(matrix: Any) -> Product:
        def solve(b: Tensor) -> Tensor:
            return torch.from_numpy(krylov(matrix, a, b.numpy(), diagonal, tolerance))

        return solve

    norm = a * _norm_bound(torch.from_numpy(columns), torch.from_numpy(rows))
    return System(product(w), product(w_t), solver(w), solver(w_t), norm, _rounding(widest))


def krylov(matrix: Any, a: float, rhs: Any, diagonal: Any, tolerance: float) -> Any:
    """Solve ``(I - a W) X = rhs`` (H, c) for all columns at once, so that W is read once a product.

    BiCGSTAB on the block diagonal system with a diagonal (Jacobi) preconditioner; restarted GMRES where
    that breaks down.
    """
    from scipy.sparse.linalg import LinearOperator, bicgstab, gmres

    shape = rhs.shape
    flat = np.ascontiguousarray(rhs).reshape(-1)
    if not flat.any():
        return np.zeros(shape)
    size = (flat.size, flat.size)
    usable = np.where(np.abs(diagonal) > 0.1, diagonal, 1.0)[:, None]
    forward = LinearOperator(
        size,
        dtype=np.float64,
        matvec=lambda x: (x.reshape(shape) - a * (matrix @ x.reshape(shape))).reshape(-1),
    )
    jacobi = LinearOperator(size, dtype=np.float64, matvec=lambda x: (x.reshape(shape) / usable).reshape(-1))
    # a stagnating solver keeps its best and the certificate says how good that is
    found, failed = bicgstab(forward, flat, rtol=tolerance, maxiter=1000, M=jacobi)
    if failed or not np.isfinite(found).all():
        guess = found if np.isfinite(found).all() else None
        found, failed = gmres(forward, flat, x0=guess, rtol=tolerance, restart=RESTART, maxiter=200, M=jacobi)
    if not np.isfinite(found).all() or np.linalg.norm(forward @ found - flat) > 1e-3 * np.linalg.norm(flat):
        raise ConvergenceError(
            "the Krylov solve of I - damping * W did not converge to 1e-3; use a smaller damping or a finite "
            "horizon"
        )
    return found.reshape(shape)


def woodbury_system(diagonal: Tensor, left: Tensor, right: Tensor, a: float) -> System:
    """Return the system of ``W = diag(diagonal) + left @ right.T``, solved by Woodbury's identity."""
    d, u, v = (t.detach().double().cpu() for t in (diagonal, left, right))
    t = (1.0 - a * d)[:, None]
    if float(t.abs().min()) < 1e-8:
        raise ConvergenceError(
            "1 - damping * diagonal vanishes at some unit, so Woodbury's identity cannot be used; "
            "use a dense one, Pathways(net.w_in, net.w_rec, net.w_out)"
        )
    inner = torch.eye(u.shape[1], dtype=torch.float64) - a * (v.mT @ (u / t))
    lu, pivots = torch.linalg.lu_factor(inner)

    def solve(b: Tensor) -> Tensor:
        inside: Tensor = torch.linalg.lu_solve(lu, pivots, v.mT @ (b / t))
        return (b + a * u @ inside) / t

    def solve_t(b: Tensor) -> Tensor:
        inside: Tensor = torch.linalg.lu_solve(lu, pivots, u.mT @ (b / t), adjoint=True)
        return (b + a * v @ inside) / t

    u_norm, v_norm = (float(torch.linalg.matrix_norm(m)) for m in (u, v))
    return System(
        lambda x: t * x - a * (u @ (v.mT @ x)),
        lambda x: t * x - a * (v @ (u.mT @ x)),
        solve,
        solve_t,
        a * (float(d.abs().max()) + u_norm * v_norm),
        _rounding(d.shape[0] + u.shape[1]),
    )


def prefers_krylov(hidden: int, edges: float, columns: int, contraction: float) -> bool:
    """Return whether Krylov iterations are cheaper than LU, by a small cost model.

    LU: ``2/3 H^3`` at the speed of large products. Krylov: two products of ``columns`` columns an iteration
    at half that speed, and as many iterations as the powers of ``contraction`` (damping times spectral
    radius) need to fall to the tolerance, halved for the acceleration of the method.
    """
    if hidden < 256:
        return False
    iterations = min(1000.0, 0.5 * math.log(TOLERANCE) / math.log(min(max(contraction, 0.05), 0.999)))
    return 2 * iterations * 2 * 2 * edges * columns < 2 / 3 * float(hidden) ** 3


def to_scipy(matrix: Tensor) -> Any:
    """Return a CSR tensor as a float64 SciPy matrix."""
    import scipy.sparse

    values, col, crow = (
        part.detach().cpu().numpy()
        for part in (matrix.values().double(), matrix.col_indices(), matrix.crow_indices())
    )
    rows, columns = matrix.shape
    return scipy.sparse.csr_matrix((values, col, crow), shape=(rows, columns))


def _norm_bound(columns: Tensor, rows: Tensor) -> float:
    return math.sqrt(float(columns.max()) * float(rows.max()))


def _rounding(terms: int) -> float:
    return (terms + 4) * torch.finfo(torch.float64).eps
