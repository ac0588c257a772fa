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
from contest import run, table
from numpy.typing import NDArray
from torch import Tensor

import hoplens as hl
from hoplens.graph.steps import narrow_csr

EDGES, THIN, HORIZON = 10, 16, 50
AIM = 1.5
SHORT, LONG = 200_000, 1_000_000  # hidden units
LINKS = 10  # bare products in a row
LONG_SECONDS = 120.0  # from here on the size of the aim


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


def scipy_chain(matrix: sp.csr_matrix, block: NDArray[np.float32]) -> None:
    """Apply the matrix again and again."""
    for _ in range(LINKS):
        block = matrix @ block


def torch_chain(matrix: Tensor, block: Tensor) -> None:
    """Apply the matrix again and again; two blocks take turns, so that no memory is asked for."""
    block, spare = block.clone(), torch.empty_like(block)
    for _ in range(LINKS):
        torch.addmm(spare, matrix, block, beta=0, out=spare)
        block, spare = spare, block


def timed(run: Callable[[], object], repeats: int) -> float:
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


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return a Markdown table of times, ratios and memory.

    Parameters
    ----------
    seconds : float
        Below two minutes with a fifth of the hidden units.
    full : bool
        A million hidden units whatever the time.
    """
    large = full or seconds >= LONG_SECONDS
    hidden = LONG if large else SHORT
    net, matrix = network(hidden)
    narrow, column = narrow_csr(net.w_rec), net.w_in
    start, rounds = peak(), 1 if large else 3
    bare: dict[str, list[float]] = {"SciPy": [], "PyTorch": []}
    own = []
    for _ in range(rounds + 1):  # the machine drifts: bare products are measured before and after ours
        bare["SciPy"].append(timed(lambda: scipy_chain(matrix, column.numpy()), 1) / LINKS)
        bare["PyTorch"].append(timed(lambda: torch_chain(narrow, column), 1) / LINKS)
        if len(own) < rounds:
            own.append(timed(lambda: hl.hop_maps(net, HORIZON), 1))
    maps_peak = peak()
    sampled = timed(lambda: torch.sparse.sampled_addmm(narrow, column, column.mT, beta=0.0), 3)
    one = min(float(np.median(times)) for times in bare.values())
    leaf = net.w_rec.detach().requires_grad_()
    trained = hl.Pathways(net.w_in, leaf, net.w_out)
    penalty = hl.PathwayPenalty(HORIZON)
    cost = timed(lambda: penalty(trained).backward(), 1)
    limit, floor = (HORIZON - 1) * one, (HORIZON - 1) * (2 * one + sampled)
    ratio = float(np.median(own)) / limit
    aim = f"at most {AIM} of 49 bare products: {'met' if ratio <= AIM else 'missed'}"
    rows = [
        [
            "hop maps",
            f"{float(np.median(own)):.2f}",
            f"{limit:.2f}",
            f"{ratio:.2f}",
            f"{maps_peak - start:.0f}",
            aim,
        ],
        [
            "penalty and gradient",
            f"{cost:.2f}",
            f"{floor:.2f}",
            f"{cost / floor:.2f}",
            f"{peak() - start:.0f}",
            "none",
        ],
    ]
    title = (
        f"H = {hidden}, {EDGES} edges a unit, I = O = {THIN}, horizon {HORIZON}; a bare product: "
        + ", ".join(f"{name} {1e3 * float(np.median(times)):.0f} ms" for name, times in bare.items())
        + f"; network and inputs {start:.0f} MiB"
    )
    head = ["what", "seconds", "bare products, seconds", "ratio", "peak above (MiB)", "aim"]
    return f"{title}\n\n{table(head, rows)}"


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
