"""A data set of sequences, cut into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.display import Shown
from hoplens.errors import NonFiniteError, ShapeError, check_choice

FORMS = ("class", "step class", "step labels", "step values")
IGNORED = -100  # target of a padded step of form "step class", as in torch's cross-entropy


@dataclass(frozen=True, eq=False, repr=False)
class Split(Shown):
    """Sequences and their targets, padded at the end.

    Attributes
    ----------
    inputs : Tensor of float32, shape (N, L, I)
        Zero from a sequence's length on.
    targets : Tensor
        By the form of the data set: "class" int64 (N,); "step class" int64 (N, L), -100 where padded;
        "step labels" float32 0 or 1 (N, L, O); "step values" float32 (N, L, O), 0 where padded.
    lengths : Tensor of int64, shape (N,)
        Valid steps of each sequence.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        fits = self.inputs.dim() == 3 and len(self.targets) == len(self.lengths) == len(self.inputs)
        if not fits or self.lengths.dim() != 1:
            raise ShapeError(
                "a split needs inputs (N, L, I), targets (N, ...) and lengths (N,), got "
                f"{tuple(self.inputs.shape)}, {tuple(self.targets.shape)} and {tuple(self.lengths.shape)}"
            )
        if len(self) and not (int(self.lengths.min()) >= 1 and int(self.lengths.max()) <= self.length):
            raise ShapeError(
                f"lengths must lie in 1 .. L = {self.length}, got {int(self.lengths.min())} .. "
                f"{int(self.lengths.max())}"
            )
        if not bool(torch.isfinite(self.inputs).all()):
            raise NonFiniteError("inputs must be finite numbers; drop the sequences with NaN or infinity")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def length(self) -> int:
        """Time steps L of the longest sequence."""
        return self.inputs.shape[1]

    @property
    def mask(self) -> Tensor:
        """Valid steps, bool, shape (N, L)."""
        steps = torch.arange(self.length, device=self.inputs.device)
        return steps < self.lengths[:, None]


@dataclass(frozen=True, eq=False, repr=False)
class SequenceData(Shown):
    """A data set, standardised on its training split only.

    Attributes
    ----------
    name : str
    form : {"class", "step class", "step labels", "step values"}
        One class a sequence (read out after the last step); one class, several yes-or-no labels, or real
        numbers after every step.
    train, validation, test : Split
    n_outputs : int
        Classes, labels or values, O.
    input_names, output_names : tuple of str
    mean, scale : Tensor, shape (I,)
        ``inputs = (raw - mean) / scale``; zeros and ones where inputs are codes.
    source, licence, citation : str
        Where it comes from, under what terms, and whom to cite.
    """

    name: str
    form: str
    train: Split
    validation: Split
    test: Split
    n_outputs: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    source: str
    licence: str
    citation: str

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        if len(self.input_names) != self.n_inputs or len(self.output_names) != self.n_outputs:
            raise ShapeError(
                f"{self.name}: {len(self.input_names)} input names and {len(self.output_names)} output names "
                f"for {self.n_inputs} inputs and {self.n_outputs} outputs"
            )

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.train.inputs.shape[2]

    @property
    def length(self) -> int:
        """Time steps L of the longest training sequence."""
        return self.train.length

    @property
    def every_step(self) -> bool:
        """Whether there is a target after every step."""
        return self.form != "class"
