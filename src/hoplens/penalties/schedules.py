"""Penalties whose weight changes over training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from hoplens.errors import ParameterError, check_number
from hoplens.penalties.base import Penalty, check_penalties, sum_terms, terms_of


@dataclass(frozen=True)
class Schedule:
    """A factor that depends piecewise linearly on training progress.

    Parameters
    ----------
    points : tuple of (progress, factor)
        Progress in [0, 1], not falling; two points at the same progress make a jump. Before the first
        and after the last point the factor stays.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.points or any(len(point) != 2 for point in self.points):
            raise ParameterError(
                f"a schedule needs at least one point (progress, factor), got {self.points!r}"
            )
        places = [
            check_number("the progress of a point", place, least=0.0, most=1.0) for place, _ in self.points
        ]
        if sorted(places) != places:
            raise ParameterError(f"the progress of a schedule's points must not fall, got {self.points}")
        factors = [check_number("the factor of a point", factor) for _, factor in self.points]
        object.__setattr__(self, "points", tuple(zip(places, factors, strict=True)))  # lists would not hash

    def __call__(self, progress: float) -> float:
        """Return the factor at this progress; right after a jump, the new one."""
        places = np.array([place for place, _ in self.points])
        factors = [factor for _, factor in self.points]
        after = int(np.searchsorted(places, progress, side="right"))
        if after == 0 or after == len(places):
            return factors[0 if after == 0 else -1]
        left, right = places[after - 1], places[after]
        share = (progress - left) / (right - left)
        return float(factors[after - 1] + share * (factors[after] - factors[after - 1]))


def constant(factor: float = 1.0) -> Schedule:
    """Return a schedule that never changes.

    Parameters
    ----------
    factor : float, default 1
        The factor.
    """
    return Schedule(((0.0, factor),))


def warm_up(until: float, start: float = 0.0) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1.

    Parameters
    ----------
    until : float
        Progress at which 1 is reached.
    start : float, default 0
        Progress up to which the factor is 0.
    """
    if not 0 <= start < until <= 1:
        raise ParameterError(f"warm_up needs 0 <= start < until <= 1, got start={start}, until={until}")
    return Schedule(((start, 0.0), (until, 1.0)))


def window(start: float, stop: float, ramp: float = 0.0) -> Schedule:
    """Return a schedule that is 1 between two points of training and 0 outside.

    Parameters
    ----------
    start, stop : float
        Progress values.
    ramp : float, default 0
        Length of the linear rise that begins at ``start``.
    """
    if not 0 <= start < stop <= 1 or not 0 <= ramp <= stop - start:
        raise ParameterError(
            f"window needs 0 <= start < stop <= 1 and 0 <= ramp <= stop - start, got {start}, {stop}, {ramp}"
        )
    points = [(start, 1.0)] if ramp == 0 else [(start, 0.0), (min(start + ramp, stop), 1.0)]
    if start > 0 and ramp == 0:
        points.insert(0, (start, 0.0))
    if stop < 1:
        points += [(stop, 1.0), (stop, 0.0)]
    return Schedule(tuple(points))


class ScheduledPenalty(nn.Module):
    """A sum of penalties, each with its own schedule.

    Parameters
    ----------
    terms : iterable of (float, Penalty, Schedule)
        Weight, penalty and schedule of each term.
    """

    def __init__(self, terms: Iterable[tuple[float, Penalty, Schedule]]) -> None:
        super().__init__()
        rows = list(terms)
        check_penalties(penalty for _, penalty, _ in rows)
        self.weights = [check_number("the weight of a penalty", weight) for weight, _, _ in rows]
        self.penalties = nn.ModuleList([penalty for _, penalty, _ in rows])
        self.schedules = [schedule for _, _, schedule in rows]

    @property
    def terms(self) -> list[Penalty]:
        """All penalties, those of sums one by one, whenever they count."""
        return [term for p in self.penalties if isinstance(p, Penalty) for _, term in terms_of(p)]

    def active(self, progress: float) -> list[tuple[float, Penalty]]:
        """Return the terms that count at this progress with their weights, weights of 0 left out."""
        rows = zip(self.weights, self.penalties, self.schedules, strict=True)
        terms = [(weight * schedule(progress), penalty) for weight, penalty, schedule in rows]
        return [(w, p) for w, p in terms if w != 0.0 and isinstance(p, Penalty)]

    def forward(
        self,
        net: Any,
        progress: float | None = None,
        *,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return the penalty at this training progress, shape (...,).

        Parameters
        ----------
        net : Pathways
            Or, if a term acts on data, the model.
        progress : float
            ``step / steps``, in [0, 1].
        inputs : Tensor, shape (B, L, I), optional
            For terms that act on data.
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; default all.

        Raises
        ------
        ParameterError
            Without progress: what counts depends on it.
        """
        if progress is None:
            raise ParameterError(
                "a scheduled penalty depends on how far training is: call penalty(net, step / steps)"
            )
        progress = check_number("progress", progress, least=0.0, most=1.0)
        return sum_terms(self.active(progress), net, inputs, lengths)


def switch(first: Penalty, second: Penalty, *, at: float, ramp: float = 0.0) -> ScheduledPenalty:
    """Return a penalty that hands over from one to another.

    Parameters
    ----------
    first, second : Penalty
        What counts before and after.
    at : float
        Progress of the hand-over, above 0 and below 1.
    ramp : float, default 0
        Length of the second one's linear rise.
    """
    return ScheduledPenalty([(1.0, first, window(0.0, at)), (1.0, second, window(at, 1.0, ramp))])


__all__ = [
    "Schedule",
    "ScheduledPenalty",
    "constant",
    "switch",
    "warm_up",
    "window",
]
