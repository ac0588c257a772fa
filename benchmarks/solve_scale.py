"""Full resolvents of large networks: time, certified error, and whether the cost model takes the cheaper way.

Sparse W_rec by preconditioned Krylov iterations, low rank plus diagonal by Woodbury's identity, dense by LU
or Krylov iterations. Aims: every result carries a finite bound on its error, and the way taken costs at most
1.2 times the cheaper one. The spectral radius is given: finding it is another task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import scipy.sparse as sp
import torch
from contest import run, table

import hoplens as hl
from hoplens.graph import solves

EDGES, THIN, RANK = 10, 16, 16
AIM = 1.2
LONG_SECONDS = 120.0  # from here on the largest sizes


def ends(hidden: int, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw W_in and W_out."""
    return torch.randn(hidden, THIN, generator=source), torch.randn(THIN, hidden, generator=source)


def sparse(hidden: int) -> hl.Pathways:
    """Draw EDGES edges a unit; spectral radius about 1."""
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(EDGES * hidden) / np.sqrt(EDGES)).astype(np.float32)
    columns = rng.integers(0, hidden, EDGES * hidden)
    rows = np.arange(0, EDGES * hidden + 1, EDGES)
    w_in, w_out = ends(hidden, torch.Generator().manual_seed(0))
    return hl.Pathways(w_in, sp.csr_matrix((data, columns, rows), (hidden, hidden)), w_out)


def low_rank(hidden: int) -> hl.Pathways:
    """Draw a low-rank matrix and leaks; spectral radius about 1."""
    source = torch.Generator().manual_seed(0)
    u, v = (torch.randn(hidden, RANK, generator=source) / hidden**0.5 for _ in range(2))
    w_in, w_out = ends(hidden, source)
    return hl.Pathways(w_in, hl.graph.LowRank(u, v, 0.9 * torch.rand(hidden, generator=source)), w_out)


def dense(hidden: int) -> hl.Pathways:
    """Draw a dense matrix; spectral radius about 1."""
    source = torch.Generator().manual_seed(0)
    w_in, w_out = ends(hidden, source)
    return hl.Pathways(w_in, torch.randn(hidden, hidden, generator=source).div_(hidden**0.5), w_out)


def timed(call: Callable[[], hl.Resolvent]) -> tuple[float, hl.Resolvent]:
    """Return seconds and result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def row(kind: str, net: hl.Pathways, damping: float) -> list[str]:
    """Measure one network; of a dense one also both ways by themselves."""

    def solve() -> hl.Resolvent:
        return hl.resolvent(net, damping=damping, normalise=False, radius=1.0)

    both = {}
    if kind == "dense":
        for name, krylov in (("LU", False), ("Krylov", True)):
            with patch.object(solves, "prefers_krylov", lambda *_, krylov=krylov: krylov):
                both[name] = timed(solve)[0]
    seconds, result = timed(solve)
    assert result.error_bound is not None
    size = float(result.value.abs().max())
    error = float(result.error_bound.max()) / size
    certified = "bound finite: " + ("met" if np.isfinite(error) else "missed")
    aims = [certified]
    if both:
        taken = "Krylov" if "Krylov" in result.method else "LU"
        ratio = both[taken] / min(both.values())
        aims.append(f"at most {AIM} of the cheaper: {'met' if ratio <= AIM else 'missed'} ({ratio:.2f})")
    ways = ", ".join(f"{name} {cost:.2f}" for name, cost in both.items())
    residual = float(result.residual.max())
    return [
        kind, str(net.n_hidden), f"{damping:g}", result.method, f"{seconds:.2f}", ways, f"{residual:.1e}",
        f"{error:.1e}", "; ".join(aims),
    ]  # fmt: skip


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    seconds : float
        Below two minutes without the largest sizes.
    full : bool
        With a million sparse units and 8192 dense ones.
    """
    large = full or seconds >= LONG_SECONDS
    rows = [row("sparse", sparse(1_000_000 if large else 100_000), a) for a in (0.5, 0.9)]
    rows += [row("low rank + diagonal", low_rank(1_000_000 if large else 200_000), 0.9)]
    sizes = (1024, 8192) if large else (512, 2048)
    rows += [row("dense", dense(hidden), a) for hidden in sizes for a in (0.3, 0.8)]
    head = ["W_rec", "H", "damping x radius", "method", "seconds", "both ways, seconds", "residual"]
    return table([*head, "bound / largest entry", "aim"], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
