"""Removing recurrent weights gradually, while training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hoplens.errors import ParameterError, check_choice, check_number
from hoplens.graph.scores import SCORES


@dataclass(frozen=True)
class GradualPruning:
    """Gradual removal of recurrent weights while training goes on.

    Parameters
    ----------
    amount : float
        Share of all recurrent weights that is zero in the end, in [0, 1).
    start, stop : float
        Training progress over which weights go; the share follows the cubic schedule
        ``amount * (1 - (1 - s)^3)`` (Zhu and Gupta 2017), s the part of the way done.
    release : float, default 1
        Progress from which removed weights may come back (1: never). The networks are then dense again,
        but the weights that came back late are small and carry little.
    tolerance : float, default infinity
        A network is pruned only while its training loss (smoothed over time, as a share of the loss of a
        constant best guess) is at most this; meanwhile its schedule waits. One that has not learnt the task
        yet keeps its weights, and one that learns late is pruned less.
    by : {"magnitude", "pathway"}
        The score.
    least_strength : float, default 0
        Networks whose strength is below this are not pruned: a weak penalty asks for the best error, a
        strong one for few weights.
    """

    amount: float
    start: float = 0.5
    stop: float = 0.8
    release: float = 1.0
    tolerance: float = math.inf
    by: Literal["magnitude", "pathway"] = "magnitude"
    least_strength: float = 0.0

    def __post_init__(self) -> None:
        check_number("amount", self.amount, least=0.0, below=1.0)
        check_number("least_strength", self.least_strength, least=0.0)
        check_choice("score", self.by, SCORES)
        if not self.tolerance > 0:
            raise ParameterError(f"tolerance must be above 0, got {self.tolerance!r}")
        if not 0 <= self.start < self.stop <= self.release <= 1:
            raise ParameterError(
                "pruning needs 0 <= start < stop <= release <= 1, "
                f"got {self.start}, {self.stop}, {self.release}"
            )

    def share(self, done: Tensor) -> Tensor:
        """Return the share of weights that should be zero when a part of the schedule is done.

        Parameters
        ----------
        done : Tensor
            Part of the way from ``start`` to ``stop``; clamped to [0, 1].
        """
        return self.amount * (1 - (1 - done.clamp(0.0, 1.0)) ** 3)
