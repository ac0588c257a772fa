"""What the tasks compute from the modules of their input.

A task first aggregates every module over its inputs and its signal steps to one number ``u_m`` of unit
variance, then combines each module with its sibling (modules 2j and 2j + 1 form a super-module). All
targets have mean 0 and variance 1, so that a mean squared error is a share of the target variance.

Source of the four functions: arXiv:2605.03598 (module averaging, subtraction, addition,
multiplication); the scaling to unit variance is hoplens's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModuleFunction:
    """How a task turns module aggregates into targets.

    Attributes
    ----------
    combine : callable
        Maps the aggregates of all modules and of their siblings, each (..., M), to targets (..., M).
    slopes : tuple of float
        Derivative of the target by a module's own aggregate and by its sibling's, taken where both
        equal ``mean``.
    mean : float
        Mean of the aggregates (their variance is 1).
    linear : bool
        Whether ``combine`` is linear, so that its slopes are the whole truth.
    paired : bool
        Whether siblings matter, which takes an even number of modules.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    slopes: tuple[float, float]
    mean: float = 0.0
    linear: bool = True
    paired: bool = True


def _average(own: Tensor, sibling: Tensor) -> Tensor:  # noqa: ARG001 - one signature for all
    return own


def _subtract(own: Tensor, sibling: Tensor) -> Tensor:
    return (own - sibling) / math.sqrt(2)


def _add(own: Tensor, sibling: Tensor) -> Tensor:
    return (own + sibling) / math.sqrt(2)


def _multiply(own: Tensor, sibling: Tensor) -> Tensor:
    # for independent u, v of mean 1 and variance 1: E[uv] = 1, Var[uv] = 1 + 1 + 1
    return (own * sibling - 1) / math.sqrt(3)


FUNCTIONS: dict[str, ModuleFunction] = {
    "averaging": ModuleFunction(_average, (1.0, 0.0), paired=False),
    "subtraction": ModuleFunction(_subtract, (1 / math.sqrt(2), -1 / math.sqrt(2))),
    "addition": ModuleFunction(_add, (1 / math.sqrt(2), 1 / math.sqrt(2))),
    "multiplication": ModuleFunction(_multiply, (1 / math.sqrt(3), 1 / math.sqrt(3)), mean=1.0, linear=False),
}


def sibling_order(modules: int) -> Tensor:
    """Return the index of each module's sibling, shape (M,): 1, 0, 3, 2, ..."""
    return torch.arange(modules) ^ 1
