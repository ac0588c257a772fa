"""Peak memory of a training step with and without a pathway penalty, each in a process of its own.

Aim: at H = 4096, L = 200, B = 64 at most 1.5 times the peak of nn.RNN's own step. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

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


def main() -> None:
    """Print one line a contestant and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="H = 4096, L = 200: two minutes")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        print("peak memory is read from /proc, which this system lacks; nothing measured")
        return
    for sizes in [[512, 200, 64, 8], [1024, 200, 64, 8]] + ([[4096, 200, 64, 8]] if options.full else []):
        print("H = {}, L = {}, B = {}, I = O = {}".format(*sizes))
        base = None
        for kind in ("none", "L1", "ours") if sizes[0] < 4096 else ("none", "ours"):
            start, peak = measure(kind, sizes)
            base = peak if base is None else base
            ratio = peak / base
            print(
                f"  {kind:5s} peak {peak:6.0f} MiB, {peak - start:6.0f} of it the step; "
                f"ratio to none {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
