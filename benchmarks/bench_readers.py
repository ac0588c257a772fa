"""Hop maps and trajectory maps against the best hand-written formulations, side by side.

The hop maps' rival writes the same thin products into one buffer. The trajectory maps have three rivals in
torch.func: ``jacrev`` of the whole run (vmap over outputs and samples), ``vjp`` of it once an output, and a
hand-written recursion over steps of vmapped vector-Jacobian products. The last rows hold the time of one
``hl.read`` of a plain module, which a training loop pays every step.
"""

from __future__ import annotations

import resource
import statistics
import timeit
from collections.abc import Callable

import torch
from contest import contest, run, spread, summary, table
from torch import Tensor, nn

import hoplens as hl

OURS = "hoplens"


def peak_memory() -> float:
    """Return the process's peak memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(title: str, runners: dict[str, Callable[[], object]], seconds: float) -> list[list[str]]:
    """Return table rows: every rival's median time, and ours relative to it round by round."""
    times = contest(runners, seconds=seconds)
    rows = []
    for name, own in times.items():
        ratio = "" if name == OURS else spread(summary(times, name)[OURS])
        rows.append([title, name, f"{1e3 * statistics.median(own):.1f}", ratio])
    return rows


def hop_map_race(hidden: int, seconds: float, io: int = 64, horizon: int = 200) -> list[list[str]]:
    """Compare hop maps."""
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
    grown, answer = peak_memory() - before, horizon * io * io * 4 / 2**20
    with torch.no_grad():
        torch.testing.assert_close(hl.hop_maps(net, horizon).values, by_hand(), rtol=1e-3, atol=1e-5)
        title = f"hop maps, H = {hidden}, I = O = {io}, horizon {horizon}"
        runners = {OURS: lambda: hl.hop_maps(net, horizon), "by hand": by_hand}
        rows = compare(title, runners, seconds)
    memory = f"first call grew the peak by {grown:.1f} MiB for an answer of {answer:.1f} MiB"
    return [*rows, [title, memory, "", ""]]


def trajectory_race(kind: str, sizes: tuple[int, int, int, int, int], seconds: float) -> list[list[str]]:
    """Compare trajectory maps."""
    b, length, inputs, hidden, outputs = sizes
    torch.manual_seed(0)
    module = getattr(nn, kind)(inputs, hidden, batch_first=True).requires_grad_(False)
    head = nn.Linear(hidden, outputs).requires_grad_(False)
    cell = _cell(module)
    x = torch.randn(b, length, inputs)

    def outputs_of(u: Tensor) -> Tensor:
        state = u.new_zeros(*u.shape[:-2], cell.n_state)
        for t in range(length):
            state = cell.step(state, u[..., t, :])
        return cell.emit(state) @ head.weight.mT

    def jacrev() -> Tensor:
        return torch.func.vmap(torch.func.jacrev(outputs_of))(x).transpose(1, 2)

    def once_an_output() -> Tensor:
        y, pull = torch.func.vjp(outputs_of, x)
        eye = torch.eye(outputs)
        return torch.stack([pull(eye[o].expand_as(y))[0] for o in range(outputs)], 2)

    def all_outputs() -> Tensor:
        y, pull = torch.func.vjp(outputs_of, x)
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
    title = f"trajectory maps, {kind}, (B, L, I, H, O) = {sizes}"
    return compare(title, {OURS: ours, **rivals}, seconds)


def _cell(module: nn.Module) -> hl.Cell:
    from hoplens.models.readers.models import to_stack

    stack = to_stack(module)
    assert isinstance(stack, hl.Stack)
    return stack.cells[0]


def read_rows(hidden: int = 64, repeats: int = 2000) -> list[list[str]]:
    """Return the time of reading a plain module."""
    head = nn.Linear(hidden, 8)
    rows = []
    for module in (nn.RNN(8, hidden), nn.RNNCell(8, hidden)):
        cost = min(timeit.repeat(lambda m=module: hl.read(m, readout=head), number=repeats, repeat=5))
        rows.append([f"hl.read, nn.{type(module).__name__}", OURS, f"{1e3 * cost / repeats:.4f}", ""])
    return rows


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return a Markdown table; its ratios are ours to each rival, below 1 where ours is faster.

    Parameters
    ----------
    seconds : float
        About how long to measure.
    full : bool
        Three times as long, and the larger sizes.
    """
    each = seconds * (3 if full else 1) / (7 if full else 5)
    rows = hop_map_race(2048 if full else 1024, each)
    for kind in ("RNN", "GRU", "LSTM"):
        rows += trajectory_race(kind, (32, 30, 8, 64, 4), each)
        if full:
            rows += trajectory_race(kind, (16, 50, 16, 256, 8), each)
    return table(["what", "how", "ms", "ours to it"], rows + read_rows())


if __name__ == "__main__":
    run(report, __doc__, seconds=50.0)
