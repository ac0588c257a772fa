"""What a pathway penalty adds to a training step of a user's own nn.RNN, next to L1.

Aim: at most 1.15 times the L1 step. Contestants: no penalty, L1, ours (exact; one call in 2 and in 4, mean
over these calls), the thin recursion left to autograd, and the paper's full adjacency powers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from contest import contest, run, spread, summary, table
from torch import Tensor, nn

import hoplens as hl

BATCH = 64
SIZES = [  # H, L, I = O
    (64, 20, 8), (64, 20, 2), (64, 20, 1), (64, 100, 8), (256, 20, 8), (256, 20, 1), (256, 100, 8),
    (1024, 20, 8), (1024, 20, 2), (1024, 100, 8),
]  # fmt: skip
LARGE = (4096, 20, 8)  # half a minute by itself
LONGEST = (4096, 100, 8)  # two minutes by itself
LONG_SECONDS = 90.0  # from here on with LARGE
STRENGTH = 1e-4
AIM = 1.15
CALLS = {"every=2": 2, "every=4": 4}  # steps that one entry of a contest takes


def full_powers(net: hl.Pathways, length: int, damping: float) -> Tensor:
    """The paper's way: powers of the whole adjacency matrix, hop by hop."""
    graph = damping * net.adjacency()
    i, o = net.n_inputs, net.n_outputs
    power, total = graph, graph.new_zeros(())
    for _ in range(length):
        power = power @ graph
        total = total + power[:i, -o:].abs().sum()
    return total


def thin_autograd(net: hl.Pathways, length: int, damping: float) -> Tensor:
    """The thin recursion, differentiated by autograd."""
    rows, total = damping * net.w_out, net.w_out.new_zeros(())
    for n in range(length):
        rows = damping * (rows @ net.w_rec) if n else rows
        total = total + damping * (rows @ net.w_in).abs().sum()
    return total


def steps(hidden: int, length: int, thin: int, *, large: bool) -> dict[str, Callable[[], object]]:
    """Build one contestant a penalty, all on one module."""
    torch.manual_seed(0)
    rnn, out = nn.RNN(thin, hidden, batch_first=True), nn.Linear(hidden, thin)
    weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, out.weight]
    optimiser = torch.optim.Adam([*rnn.parameters(), *out.parameters()], lr=1e-5)
    inputs, targets = torch.randn(BATCH, length, thin), torch.randn(BATCH, thin)
    exact, half, quarter = (hl.PathwayPenalty(length, every=m) for m in (1, 2, 4))

    def step(penalty: Callable[[], Tensor] | None) -> None:
        optimiser.zero_grad()
        loss = (out(rnn(inputs)[0][:, -1]) - targets).square().mean()
        if penalty is not None:
            loss = loss + STRENGTH * penalty()
        loss.backward()
        optimiser.step()

    def read() -> hl.Pathways:
        return hl.read(rnn, readout=out)

    entries = {
        "no penalty": lambda: step(None),
        "L1": lambda: step(lambda: sum(w.abs().sum() for w in weights)),
        "exact": lambda: step(lambda: exact(read())),
        "every=2": lambda: [step(lambda: half(read())) for _ in range(CALLS["every=2"])],
    }
    if not large:
        entries["every=4"] = lambda: [step(lambda: quarter(read())) for _ in range(CALLS["every=4"])]
        entries["thin recursion, autograd"] = lambda: step(lambda: thin_autograd(read(), length, 0.9))
    if hidden <= 256 and length <= 20:
        entries["full powers (paper)"] = lambda: step(lambda: full_powers(read(), length, 0.9))
    return entries


def report(seconds: float = 55.0, *, full: bool = False) -> str:
    """Return a Markdown table of ratios to the step with L1.

    Parameters
    ----------
    seconds : float
        About how long to measure; from 90 on with H = 4096.
    full : bool
        Four times as long, with H = 4096, L = 100 too.
    """
    sizes = [*SIZES, *([LARGE] if full or seconds >= LONG_SECONDS else []), *([LONGEST] if full else [])]
    names = ["no penalty", "exact", "every=2", "every=4", "thin recursion, autograd", "full powers (paper)"]
    rows = []
    for hidden, length, thin in sizes:
        large = hidden * length >= 4096 * 20
        entries = steps(hidden, length, thin, large=large)
        least = 2 if large else 5
        times = contest(entries, seconds=seconds * (4 if full else 1) / (2 * len(sizes)), least=least)
        times = {name: [t / CALLS.get(name, 1) for t in own] for name, own in times.items()}
        found = summary(times, "L1")
        ratios = {name: found[name][1] for name in ("exact", "every=2", "every=4") if name in found}
        met = next((name for name, ratio in ratios.items() if ratio <= AIM), None)
        cells = [spread(found[name]) if name in found else "" for name in names]
        aim = f"at most {AIM}: " + ("missed" if met is None else f"met, {met}")
        rows.append([str(hidden), str(length), str(thin), f"{1e3 * found['L1'][0]:.2f}", *cells, aim])
    return table(["H", "L", "I = O", "step with L1 (ms)", *(f"{name}: ratio" for name in names), "aim"], rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=55.0)
