"""A sparse network of a million hidden units: hop maps and penalty against the bare sparse products.

Aims: hop maps at horizon 50 for 16 inputs and outputs in at most 1.5 times the bare products, memory
O(nnz + H min(I, O)). The bare products are 49 of W_rec with a block of 16 columns, by SciPy or PyTorch,
whichever is faster. The penalty's gradient needs two such chains and 49 sampled products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from contest import start

import hoplens as hl
from hoplens.steps import narrow_csr

EDGES, THIN, HORIZON = 10, 16, 50


def network(hidden: int) -> tuple[hl.Pathways, sp.csr_matrix]:
    """Draw random edges, EDGES a unit."""
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(EDGES * hidden) / np.sqrt(EDGES)).astype(np.float32)
    columns = rng.integers(0, hidden, EDGES * hidden).astype(np.int32)
    w_rec = sp.csr_matrix(
        (data, columns, np.arange(0, EDGES * hidden + 1, EDGES, dtype=np.int32)), (hidden, hidden)
    )
    w_in = rng.standard_normal((hidden, THIN)).astype(np.float32)
    return hl.Pathways(w_in, w_rec, np.ascontiguousarray(w_in.T)), w_rec


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def peak() -> float:
    """Return the peak memory of this process in MiB, or NaN where it is not known."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print times and ratios."""
    options = start(__doc__.splitlines()[0])
    hidden = 1_000_000 if options.full else 200_000
    net, matrix = network(hidden)
    print(
        f"H = {hidden}, {EDGES} edges a unit, I = O = {THIN}, horizon {HORIZON}; peak so far {peak():.0f} MiB"
    )
    narrow, column, pattern = narrow_csr(net.w_rec), net.w_in, net.w_rec.detach()
    bare = {
        "SciPy": seconds(lambda: matrix @ column.numpy(), 5),
        "PyTorch": seconds(lambda: narrow @ column, 5),
    }
    sampled = seconds(lambda: torch.sparse.sampled_addmm(narrow, column, column.mT, beta=0.0), 3)
    best = min(bare.values())
    print("  one bare product: " + ", ".join(f"{k} {1e3 * v:.0f} ms" for k, v in bare.items()))
    repeats = 1 if options.full else 3
    own = seconds(lambda: hl.hop_maps(net, HORIZON), repeats)
    again = min(seconds(lambda: narrow @ column, 5), seconds(lambda: matrix @ column.numpy(), 5), best)
    limit = (HORIZON - 1) * again
    print(
        f"  hop maps {own:.2f} s; {own / limit:.2f} of bare products; peak {peak():.0f} MiB",
        flush=True,
    )
    leaf = pattern.requires_grad_()
    trained = hl.Pathways(net.w_in, leaf, net.w_out)
    penalty = hl.PathwayPenalty(HORIZON)

    def step() -> None:
        leaf.grad = None
        penalty(trained).backward()

    cost = seconds(step, 1)
    floor = (HORIZON - 1) * (2 * again + sampled)
    print(
        f"  penalty and gradient {cost:.2f} s; {cost / floor:.2f} of two chains and the sampled products; "
        f"peak {peak():.0f} MiB"
    )


if __name__ == "__main__":
    main()
