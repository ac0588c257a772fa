"""What networks are trained with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hoplens.errors import ParameterError, check_choice, check_count, check_number
from hoplens.memory import check_memory
from hoplens.models.cells import CELLS, make_cell
from hoplens.training.recipes import Recipe

AT = ("raw", "origin", "mean")


@dataclass(frozen=True)
class Network:
    """What one network of an ensemble is trained with."""

    recipe: Recipe
    strength: float
    seed: int


@dataclass(frozen=True)
class Settings:
    """How training runs; shared by all networks of an ensemble.

    Parameters
    ----------
    hidden : int, default 32
        Hidden units H.
    steps : int, default 2000
        Optimiser steps.
    batch : int, default 64
        Samples a step.
    lr : float, default 6e-3
        Adam's learning rate.
    decay : float, default 0.7
        The learning rate falls linearly to 0 over this last share of training.
    clip : float, default 1
        Largest norm of a network's gradient.
    cell : {"tanh", "relu", "linear", "leaky", "gru", "lstm", "mingru", "lru"}, default "tanh"
    leak : float, default 1
        Of a cell without gates: share of the state that is renewed each time step, dt / tau.
    eager : bool, default False
        Compute gradients by plain autograd: several times slower, the reference of the hand-written
        kernels.
    horizon : int, optional
        Time steps that pathway penalties cover; default those of the task, or of the longest training
        sequence.
    at : {"raw", "origin", "mean"}, optional
        Where the cell is linearised for pathway penalties: its weights ("raw", default of cells without
        gates), state and input zero ("origin", default of gated cells), or the mean state and input of
        each batch.
    """

    hidden: int = 32
    steps: int = 2000
    batch: int = 64
    lr: float = 6e-3
    decay: float = 0.7
    clip: float = 1.0
    cell: str = "tanh"
    leak: float = 1.0
    eager: bool = False
    horizon: int | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        for name in ("hidden", "steps", "batch"):
            check_count(name, getattr(self, name))
        check_number("lr", self.lr, above=0.0)
        check_number("decay", self.decay, least=0.0, most=1.0)
        check_number("clip", self.clip, above=0.0)
        check_choice("cell", self.cell, CELLS)
        check_number("leak", self.leak, above=0.0, most=1.0)
        if self.leak != 1 and self.blocks > 1:
            raise ParameterError(f"a {self.cell} cell has no leak; leave it out")
        if self.horizon is not None:
            check_count("horizon", self.horizon)
        if self.at is not None:
            check_choice("at", self.at, AT)

    @property
    def blocks(self) -> int:
        """Rows of H units that the cell has: 1 without gates."""
        return make_cell(self.cell, self.leak).blocks

    def check_memory(
        self,
        networks: int,
        *,
        n_inputs: int,
        n_outputs: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Raise if training so many networks cannot fit into memory.

        Parameters
        ----------
        networks : int
            Networks in the ensemble, E.
        n_inputs, n_outputs, length : int
            Sizes I, O and L.
        dtype, device
            Of the weights.
        """
        width = self.hidden + n_inputs + 1
        weights = width * self.hidden * self.blocks + self.hidden * n_outputs
        # weights, gradients, Adam's two moments and the copy that diverged networks fall back to
        numbers = 5 * weights + length * self.batch * width + self.steps
        check_memory(
            f"training {networks} networks of {self.hidden} hidden units over {length} steps",
            networks * numbers * dtype.itemsize,
            "take fewer networks, hidden units, steps or samples a batch",
            device=device,
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step (0-based)."""
        left = (self.steps - step) / self.steps
        return self.lr * min(1.0, left / self.decay) if self.decay else self.lr
