"""What a pathway penalty adds to a training step of a user's own nn.RNN, next to L1.

Aim: at most 1.15 times the L1 step. Contestants: no penalty, L1, ours (exact; one call in 2 and in 4, mean
over these calls), the thin recursion left to autograd, and the paper's full adjacency powers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from contest import contest, show, start
from torch import Tensor, nn

import hoplens as hl

BATCH = 64
SIZES = [(64, 20, 8), (64, 100, 8), (256, 20, 8), (256, 100, 8), (1024, 20, 8), (1024, 100, 8), (1024, 20, 2)]
STRENGTH = 1e-4


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
        "ours, exact": lambda: step(lambda: exact(read())),
        "ours, every=2 (two steps)": lambda: [step(lambda: half(read())) for _ in range(2)],
    }
    if not large:
        entries["ours, every=4 (four steps)"] = lambda: [step(lambda: quarter(read())) for _ in range(4)]
        entries["thin recursion, autograd"] = lambda: step(lambda: thin_autograd(read(), length, 0.9))
    if hidden <= 256 and length <= 20:
        entries["full adjacency powers (paper)"] = lambda: step(lambda: full_powers(read(), length, 0.9))
    print(exact.plan(read()))
    return entries


def main() -> None:
    """Print one table a size."""
    options = start(__doc__.splitlines()[0])
    sizes = SIZES + ([(4096, 20, 8), (4096, 100, 8)] if options.full else [(4096, 20, 8)])
    for hidden, length, thin in sizes:
        large = hidden * length >= 4096 * 20
        times = contest(steps(hidden, length, thin, large=large), seconds=options.seconds)
        for name in times:
            calls = 2 if "two steps" in name else 4 if "four steps" in name else 1
            times[name] = [t / calls for t in times[name]]
        show(f"H = {hidden}, L = {length}, B = {BATCH}, I = O = {thin}", times, "L1")


if __name__ == "__main__":
    main()
