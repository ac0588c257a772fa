"""What all functions that compress return: a model that can be called, with what was done to it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor, nn

from hoplens.models.recurrent_model import RecurrentModel


@dataclass(frozen=True, eq=False, repr=False)
class CompressedModel:
    """A model and what was done to it; every function of hoplens that takes a model takes it."""

    model: RecurrentModel

    def __call__(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the model: inputs (B, L, I) give (B, O), or (B, L, O) where ``model.info.every_step``."""
        outputs: Tensor = self.model(inputs, lengths)
        return outputs

    @property
    def core(self) -> nn.Module:
        """The recurrent module."""
        return self.model.core

    @property
    def readout(self) -> nn.Linear:
        """The read-out."""
        return self.model.readout

    def __repr__(self) -> str:
        kind, sizes = type(self.core).__name__, (self.model.n_inputs, self.core.hidden_size)
        told = [f"{sizes[0]} -> {kind}({sizes[1]}) -> {self.model.n_outputs}"]
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str | int | float):
                told.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"
