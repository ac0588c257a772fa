"""Hop maps and trajectory maps against the best hand-written formulations, side by side.

Run: python benchmarks/bench_readers.py. Prints medians of interleaved runs, and peak memory of the hop maps.
The hop maps' rival writes the same thin products into one buffer. The trajectory maps have three rivals in
torch.func: ``jacrev`` of the whole run (vmap over outputs and samples), ``vjp`` of it once an output, and a
hand-written recursion over steps of vmapped vector-Jacobian products.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import hoplens as hl


def race(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return median seconds; rounds are interleaved, so that a busy machine slows all alike."""
    for run in runners.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> float:
    """Return the process's peak memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(title: str, times: dict[str, float], ours: str) -> None:
    print(title)
    best = min(value for name, value in times.items() if name != ours)
    for name, value in times.items():
        print(f"  {name:34s} {value * 1e3:9.1f} ms   {value / best:5.2f} x the best rival")


def hop_map_race(hidden: int = 2048, io: int = 64, horizon: int = 200, rounds: int = 5) -> None:
    g = torch.Generator().manual_seed(0)
    w_in, w_out = (torch.randn(*s, generator=g) / s[1] ** 0.5 for s in ((hidden, io), (io, hidden)))
    w_rec = torch.randn(hidden, hidden, generator=g) / hidden**0.5 * 0.9
    net = hl.Pathways(w_in, w_rec, w_out)

    def by_hand() -> Tensor:
        maps = w_in.new_empty(horizon, io, io)
        rows = w_out
        for n in range(horizon):
            torch.mm(rows, w_in, out=maps[n])
            rows = rows @ w_rec
        return maps

    before = peak_memory()
    hl.hop_maps(net, horizon)
    grown = peak_memory() - before
    with torch.no_grad():
        torch.testing.assert_close(hl.hop_maps(net, horizon).values, by_hand(), rtol=1e-3, atol=1e-5)
        times = race({"hoplens": lambda: hl.hop_maps(net, horizon), "by hand": by_hand}, rounds)
    report(f"hop maps, H = {hidden}, I = O = {io}, horizon {horizon}", times, "hoplens")
    answer = horizon * io * io * 4 / 2**20
    print(f"  the answer takes {answer:.1f} MiB; the first call grew the process's peak by {grown:.1f} MiB")


def trajectory_race(kind: str, sizes: tuple[int, int, int, int, int], rounds: int = 5) -> None:
    b, length, inputs, hidden, outputs = sizes
    torch.manual_seed(0)
    module = getattr(nn, kind)(inputs, hidden, batch_first=True).requires_grad_(False)
    head = nn.Linear(hidden, outputs).requires_grad_(False)
    cell = _cell(module)
    x = torch.randn(b, length, inputs)

    def run(u: Tensor) -> Tensor:
        state = u.new_zeros(*u.shape[:-2], cell.n_state)
        for t in range(length):
            state = cell.step(state, u[..., t, :])
        return cell.emit(state) @ head.weight.mT

    def jacrev() -> Tensor:
        return torch.func.vmap(torch.func.jacrev(run))(x).transpose(1, 2)

    def once_an_output() -> Tensor:
        y, pull = torch.func.vjp(run, x)
        eye = torch.eye(outputs)
        return torch.stack([pull(eye[o].expand_as(y))[0] for o in range(outputs)], 2)

    def all_outputs() -> Tensor:
        y, pull = torch.func.vjp(run, x)
        rows = torch.eye(outputs)[:, None].expand(outputs, *y.shape)
        return torch.func.vmap(pull)(rows)[0].movedim(0, 2)

    def by_steps() -> Tensor:
        states = [x.new_zeros(b, cell.n_state)]
        for t in range(length):
            states.append(cell.step(states[-1], x[:, t]))
        emission = cell.emission()
        rows = head.weight if emission is None else head.weight @ emission
        rows = rows[:, None].expand(outputs, b, -1)
        maps = x.new_empty(b, length, outputs, inputs)
        for t in range(length - 1, -1, -1):
            _, pull = torch.func.vjp(cell.step, states[t], x[:, t])
            rows, by_x = torch.func.vmap(pull)(rows)
            maps[:, t] = by_x.movedim(0, 1)
        return maps

    def ours() -> Tensor:
        return hl.trajectory_maps(module, x, readout=head).values

    rivals = {"jacrev, vmapped": jacrev, "vjp once an output": once_an_output}
    rivals |= {"vjp, vmapped over outputs": all_outputs, "vjp by steps, vmapped": by_steps}
    for rival in rivals.values():
        torch.testing.assert_close(ours(), rival(), rtol=1e-3, atol=1e-5)
    times = race({"hoplens": ours, **rivals}, rounds)
    report(f"trajectory maps, {kind}, (B, L, I, H, O) = {sizes}", times, "hoplens")


def _cell(module: nn.Module) -> hl.Cell:
    from hoplens.readers.modules import to_stack

    stack = to_stack(module)
    assert isinstance(stack, hl.Stack)
    return stack.cells[0]


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    hop_map_race()
    for kind in ("RNN", "GRU", "LSTM"):
        trajectory_race(kind, (32, 30, 8, 64, 4))
        trajectory_race(kind, (16, 50, 16, 256, 8), rounds=3)
