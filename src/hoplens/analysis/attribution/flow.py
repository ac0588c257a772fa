"""Run a stack at many points at once and pull the output's change back to the inputs, walk by walk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from hoplens.analysis.attribution.paths import Segments
from hoplens.analysis.attribution.secants import Features, Rule, rule_for
from hoplens.models.cells import Cell, Saved
from hoplens.models.stack import Stack

AT_ONCE = 2**18  # numbers that secants are made of at once


@dataclass(frozen=True, eq=False)
class Flow:
    """What the segments found.

    Attributes
    ----------
    values : Tensor, shape (M, B, L, I)
        Contributions along each way.
    by_hop : Tensor, shape (B, K, I)
        Their mean, by hop in place of time.
    shown : Tensor, shape (2, B, n)
        What the read-out sees at the baseline and at the input.
    """

    values: Tensor
    by_hop: Tensor
    shown: Tensor


def many_hops(stack: Stack) -> bool:
    """Whether inputs of one time step reach the read-out over walks of several lengths.

    In a stack that runs forward the edges in time of a walk add up to its lag, and it crosses each level
    once. Only where a level above hears a backward one can a walk go back and forth.
    """
    return stack.bidirectional and len(stack.levels) > 1


def hops_of(stack: Stack, steps: int) -> Tensor:
    """Return the hop lengths, shape (K,)."""
    levels = len(stack.levels)
    count = 1 + levels * (steps - 1) if many_hops(stack) else steps
    return torch.arange(levels + 1, levels + 1 + count)


def features_per_step(stack: Stack) -> int:
    """Return about how many numbers a run keeps of one step."""
    return sum(12 * cell.n_state + cell.n_inputs for cell in stack.cells)


def flow(stack: Stack, x: Tensor, base: Tensor, lengths: Tensor, seed: Tensor, segments: Segments) -> Flow:
    """Return contributions of all cells along all ways of some segments.

    Parameters
    ----------
    stack : Stack
    x, base : Tensor, shape (B, L, I)
        Equal after the end of a shorter sequence.
    lengths : Tensor of int64, shape (B,)
    seed : Tensor, shape (B, n)
        Read-out row of each sample.
    segments : Segments
    """
    size, steps, inputs = x.shape
    count = len(segments.shares)
    shares = segments.shares.view(count, steps, 1, inputs).transpose(0, 1)  # (L, Q, 1, I)
    points = torch.lerp(base.transpose(0, 1)[:, None], x.transpose(0, 1)[:, None], shares)
    rules = [rule_for(cell) for cell in stack.cells]
    kept, shown = _run(stack, rules, points.flatten(1, 2), lengths.repeat(count))
    hops = 1 + len(stack.levels) * (steps - 1) if many_hops(stack) else 1
    back = _Pull(segments, lengths, seed, hops)

    def pull(place: int, part: slice, above: Tensor | None) -> Tensor:
        reverse = place in stack.backward_cells
        return back.cell(stack.cells[place], rules[place], kept[place], above, part, reverse)

    rows = stack.pull_back(pull)  # (L, P * B, R, I)
    moved = (x - base).transpose(0, 1)  # (L, B, I)
    amount = segments.amount.view(-1, steps, 1, 1, inputs).transpose(0, 1)  # (L, P, 1, 1, I)
    parts = rows.unflatten(1, (-1, size)) * amount * moved[:, None, :, None]  # (L, P, B, R, I)
    values = parts.new_zeros(segments.orders, size, steps, inputs)
    values.index_add_(0, segments.order, parts.sum(3).permute(1, 2, 0, 3))
    if hops > 1:
        by_hop = parts.sum((0, 1)) / segments.orders  # (B, R, I)
    else:
        by_hop = by_lag(values.mean(0), lengths)
    return Flow(values, by_hop, torch.stack([shown[:size], shown[-size:]]))


def by_lag(values: Tensor, lengths: Tensor) -> Tensor:
    """Reorder (B, L, I) from time to lag, zero where the lag is longer than the sequence."""
    steps = torch.arange(values.shape[1], device=values.device)
    source = lengths[:, None] - 1 - steps
    picked = values.gather(1, source.clamp_min(0)[..., None].expand_as(values))
    return picked * (source >= 0)[..., None]


def _run(stack: Stack, rules: list[Rule], x: Tensor, lengths: Tensor) -> tuple[list[Features], Tensor]:
    """Run all points (L, N, I); return the features of every cell and what is shown at the end (N, n)."""
    kept: list[Features] = []
    for level in stack.levels:
        shown = []
        for direction, cell in enumerate(level):
            held = lengths if direction and bool((lengths < len(x)).any()) else None
            states, features = rules[len(kept)].run(x, held, bool(direction))
            kept.append(features)
            shown.append(cell.emit(states))
        x = torch.cat(shown, dim=-1) if len(shown) > 1 else shown[0]
    return kept, x[lengths - 1, torch.arange(x.shape[1], device=x.device)]


@dataclass(frozen=True, eq=False)
class _Pull:
    """Rows go from the read-out back through time; R counts the edges in time that they have walked."""

    segments: Segments
    lengths: Tensor
    seed: Tensor
    hops: int

    def cell(
        self, cell: Cell, rule: Rule, kept: Features, entering: Tensor | None, part: slice, reverse: bool
    ) -> Tensor:
        count, steps = len(self.segments.start), len(kept[0])
        emission = cell.emission()
        emission = None if emission is None else emission.to(kept[0])
        lengths = self.lengths.repeat(count)[:, None, None]
        ends = set((self.lengths - 1).tolist())
        seed = self.seed[:, part] if emission is None else self.seed[:, part] @ emission
        seed = pad(seed.repeat(count, 1)[:, None], (0, 0, 0, self.hops - 1))  # no time walked yet
        rows = torch.zeros_like(seed)
        leaving: list[Tensor] = []
        order = range(steps) if reverse else range(steps - 1, -1, -1)
        ready: dict[int, Saved] = {}
        for n, t in enumerate(order):
            if t not in ready:
                ready = self._secants(rule, kept, order[n:])
            if entering is not None:
                rows = rows + (entering[t] if emission is None else entering[t] @ emission)
            elif t in ends:
                rows = rows + (seed if len(ends) == 1 else seed * (lengths == t + 1))
            if reverse and len(ends) > 1:  # padding never fed the state
                rows = rows * (t < lengths)
            rows, inner = rule.pull(ready[t], rows)
            leaving.append(inner)
            if self.hops > 1:
                rows = pad(rows[:, :-1], (0, 0, 1, 0))
        return rule.leave(torch.stack(leaving if reverse else leaving[::-1]))

    def _secants(self, rule: Rule, kept: Features, ahead: range) -> dict[int, Saved]:
        """Linearise the next steps, as many at once as stay in the caches."""
        size = len(self.lengths)
        width = sum(part.shape[-1] for part in kept) * len(self.segments.start) * size
        chosen = ahead[: max(1, AT_ONCE // width)]
        low, high = min(chosen), max(chosen) + 1
        sides = []
        for index in (self.segments.start, self.segments.end):
            parts = [part[low:high].unflatten(1, (-1, size)) for part in kept]
            sides.append(tuple(part.index_select(1, index).flatten(1, 2) for part in parts))
        found = rule.secants(*sides)
        return {t: tuple(part[t - low] for part in found) for t in chosen}


__all__ = ["Flow", "by_lag", "features_per_step", "flow", "hops_of", "many_hops"]
