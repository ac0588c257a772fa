"""Peak memory of a training step with and without a pathway penalty, each in a process of its own.

Aim: at H = 4096, L = 200, B = 64 at most 1.5 times the peak of nn.RNN's own step. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from contest import run, table

KINDS = ("none", "L1", "ours")
AIM = 1.5
LARGE_SECONDS = 100.0  # from here on with the largest size

SCRIPT = """
import sys, torch
import hoplens as hl
from torch import nn

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

kind, hidden, length, batch, thin = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
torch.manual_seed(0)
rnn, out = nn.RNN(thin, hidden, batch_first=True), nn.Linear(hidden, thin)
penalty = hl.PathwayPenalty(length)
weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, out.weight]
optimiser = torch.optim.Adam([*rnn.parameters(), *out.parameters()])
inputs = torch.randn(batch, length, thin)
start = peak()
for _ in range(2):  # Adam's state exists from the second step on
    optimiser.zero_grad()
    loss = out(rnn(inputs)[0][:, -1]).square().mean()
    if kind == "L1":
        loss = loss + 1e-4 * sum(w.abs().sum() for w in weights)
    if kind == "ours":
        loss = loss + 1e-4 * penalty(hl.read(rnn, readout=out))
    loss.backward()
    optimiser.step()
print(start, peak())
"""


def measure(kind: str, sizes: list[int]) -> tuple[float, float]:
    """Return MiB before the first step and at the peak."""
    command = [sys.executable, "-c", SCRIPT, kind, *map(str, sizes)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    start, peak = (int(number) / 1024 for number in result.stdout.split())
    return start, peak


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return a Markdown table of peaks, or one line where the system has no /proc.

    Parameters
    ----------
    seconds : float
        Below 100 without the largest size.
    full : bool
        With the size of the aim, H = 4096: two minutes more.
    """
    if not Path("/proc/self/status").exists():
        return "peak memory is read from /proc, which this system lacks; nothing measured"
    large = full or seconds >= LARGE_SECONDS
    rows = []
    for sizes in [[512, 200, 64, 8], [1024, 200, 64, 8]] + ([[4096, 200, 64, 8]] if large else []):
        peaks = {kind: measure(kind, sizes) for kind in KINDS[:: 2 if sizes[0] == 4096 else 1]}
        base = peaks["none"][1]
        ratio = peaks["ours"][1] / base
        l1 = f"{peaks['L1'][1] / base:.3f}" if "L1" in peaks else ""
        own = [peak - start for start, peak in (peaks["none"], peaks["ours"])]
        sizes_shown = [str(size) for size in sizes]
        aim = f"at most {AIM}: {'met' if ratio <= AIM else 'missed'}"
        rows.append([*sizes_shown, f"{base:.0f}", l1, f"{ratio:.3f}", f"{own[0]:.0f}, {own[1]:.0f}", aim])
    head = ["H", "L", "B", "I = O", "peak without (MiB)", "L1: ratio", "penalty: ratio"]
    return table([*head, "of it the step, without and with (MiB)", "aim"], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
