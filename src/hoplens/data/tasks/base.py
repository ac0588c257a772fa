"""The task value: inputs, targets, and the hop maps that link them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.data.tasks.functions import FUNCTIONS, ModuleFunction, sibling_order
from hoplens.errors import ShapeError, check_count
from hoplens.seeds import bare_generator


class Batch(NamedTuple):
    """Samples of a task: ``inputs`` (B, L, I) and ``targets`` (B, O)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Task:
    """A hierarchically modular task; build one with `hoplens.tasks.make`.

    Attributes
    ----------
    name, signal : str
        Function and signal pattern.
    modules, module_size : int
        Number of modules M and inputs in each; I = M * module_size.
    outputs_per_module : int
        Copies of each module's target; O = M * outputs_per_module.
    length : int
        Time steps L; the read-out is after the last.
    signal_steps : tuple of int
        The time steps (0-based) that carry signal.
    noise : float
        Standard deviation of the inputs at all other steps (signal: 1).
    target_noise : float
        Standard deviation of the noise added to the targets, in units of their own.
    form : {"regression", "sign"}
        Targets of mean 0 and variance 1, or 1 where these are above 0 and 0 elsewhere.
    """

    name: str
    signal: str
    modules: int
    module_size: int
    outputs_per_module: int
    length: int
    signal_steps: tuple[int, ...]
    noise: float
    target_noise: float
    form: str

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.modules * self.module_size

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.modules * self.outputs_per_module

    @property
    def label(self) -> str:
        """Name, signal and, for one signal step, its lag."""
        lag = f" (lag {self.length - 1 - self.signal_steps[0]})" if self.is_one_lag else ""
        return f"{self.name}, {self.signal}{lag}" + (", sign" if self.form == "sign" else "")

    @property
    def is_one_lag(self) -> bool:
        """Whether exactly one time step of a sparse pattern carries signal."""
        return self.signal == "sparse" and len(self.signal_steps) == 1

    @property
    def is_linear(self) -> bool:
        """Whether ``target_maps`` give the targets exactly (else to first order)."""
        return self.function.linear

    @property
    def function(self) -> ModuleFunction:
        """The function of module aggregates that the targets follow."""
        return FUNCTIONS[self.name]

    @property
    def input_modules(self) -> tuple[str, ...]:
        """Module of each input."""
        return tuple(f"m{m}" for m in range(self.modules) for _ in range(self.module_size))

    @property
    def output_modules(self) -> tuple[str, ...]:
        """Module of each output."""
        return tuple(f"m{m}" for m in range(self.modules) for _ in range(self.outputs_per_module))

    @cached_property
    def signal_hops(self) -> Tensor:
        """Which hops 2 .. L + 1 carry signal, shape (K,), bool. Hop k carries step L - 1 - (k - 2)."""
        carries = torch.zeros(self.length, dtype=torch.bool)
        carries[[self.length - 1 - step for step in self.signal_steps]] = True
        return carries

    @cached_property
    def target_maps(self) -> Tensor:
        """Ground-truth hop maps, shape (K, O, I), float64: the Jacobian of the targets at the mean input."""
        own, sibling = self.function.slopes
        block = own * torch.eye(self.modules, dtype=torch.float64)
        if sibling:
            block += sibling * torch.eye(self.modules, dtype=torch.float64)[sibling_order(self.modules)]
        members = torch.ones(self.outputs_per_module, self.module_size, dtype=torch.float64) * self._gain
        return self.signal_hops[:, None, None] * torch.kron(block, members)

    @property
    def target_active_hops(self) -> float:
        """Mean number of hops per input-output pair that carry weight in ``target_maps``."""
        return float((self.target_maps != 0).sum(dim=0).double().mean())

    @property
    def mean_input(self) -> Tensor:
        """Expected inputs, shape (L, I), float64."""
        mean = torch.zeros(self.length, self.n_inputs, dtype=torch.float64)
        mean[list(self.signal_steps)] = self.function.mean * self._gain
        return mean

    @property
    def _gain(self) -> float:
        # the sum of n independent unit-variance numbers has unit variance after division by sqrt(n)
        return 1 / math.sqrt(self.module_size * len(self.signal_steps))

    def clean_targets(self, inputs: Tensor) -> Tensor:
        """Return the noiseless regression targets of given inputs, differentiable.

        Parameters
        ----------
        inputs : Tensor, shape (..., L, I)

        Returns
        -------
        Tensor, shape (..., O)
        """
        if inputs.shape[-2:] != (self.length, self.n_inputs):
            raise ShapeError(
                f"inputs must have shape (..., L={self.length}, I={self.n_inputs}), got {tuple(inputs.shape)}"
            )
        steps = torch.tensor(self.signal_steps, device=inputs.device)
        total = inputs.index_select(-2, steps).sum(dim=-2)  # (..., I)
        own = self._gain * total.unflatten(-1, (self.modules, self.module_size)).sum(dim=-1)  # (..., M)
        sibling = own[..., sibling_order(self.modules).to(own.device)] if self.function.paired else own
        return self.function.combine(own, sibling).repeat_interleave(self.outputs_per_module, dim=-1)

    def sample(
        self, n: int, *, generator: torch.Generator | int, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Draw samples.

        Parameters
        ----------
        n : int
            Number of samples B.
        generator : torch.Generator or int
            Source of randomness, or a seed for a new one on the CPU. Samples lie on its device.
        dtype : torch.dtype, default float32
            Of inputs and targets.

        Returns
        -------
        Batch
            ``inputs`` (B, L, I) and ``targets`` (B, O).
        """
        count = check_count("n", n)
        if not isinstance(generator, torch.Generator):
            generator = bare_generator(check_count("generator (as a seed)", generator, least=0))
        device = generator.device
        shape = (count, self.length, self.n_inputs)
        inputs = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        carries = torch.zeros(self.length, 1, device=device, dtype=dtype)
        carries[list(self.signal_steps)] = 1.0
        inputs = inputs * (carries + self.noise * (1 - carries))
        if self.function.mean:
            inputs = inputs + self.mean_input.to(device, dtype)
        targets = self.clean_targets(inputs)
        if self.target_noise:
            noise = torch.randn(targets.shape, generator=generator, device=device, dtype=dtype)
            targets = targets + self.target_noise * noise
        if self.form == "sign":
            targets = (targets > 0).to(dtype)
        return Batch(inputs, targets)
