"""What removing a weight costs, by four criteria."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoplens.compress.reconstruction import cost_matrices, refit, removal_costs, restricted
from hoplens.compress.sensitivity import Matrix, sensitivities
from hoplens.compress.tuning import loss
from hoplens.models.recurrent_model import RecurrentModel

CRITERIA = ("pathway", "magnitude", "taylor", "random")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Criterion:
    """How weights are scored.

    Attributes
    ----------
    by : {"pathway", "magnitude", "taylor", "random"}
    inputs : Tensor, shape (B, L, I)
        Sequences that pathway and Taylor scores are measured on.
    targets : Tensor or None
        For Taylor scores.
    loss : callable
        Maps (outputs, targets) to a mean over samples.
    generator : torch.Generator
        Of random scores.
    seed : int
        Of the mixtures of outputs, see `sensitivities`.
    """

    by: str
    inputs: Tensor
    targets: Tensor | None
    loss: Loss
    generator: torch.Generator
    seed: int = 0

    def matrices(self, model: RecurrentModel) -> dict[str, Matrix]:
        """Return the weight matrices with what the criterion needs to know of them.

        Parameters
        ----------
        model : RecurrentModel
        """
        if self.by != "taylor":
            return sensitivities(model, self.inputs, seed=self.seed)
        assert self.targets is not None

        def objective(outputs: Tensor) -> Tensor:
            assert self.targets is not None
            return self.loss(outputs, self.targets) * len(outputs)

        return sensitivities(model, self.inputs, objective=objective)

    def plain(self, matrix: Matrix) -> Tensor:
        """Return magnitude, Taylor or random scores, shape (R, C).

        Magnitude is ``|W|``; Taylor ``W^2 mean_s (d loss_s / d W)^2`` over samples s (Molchanov et al.
        2019): in our comparison better than ``|W d loss / d W|`` of the mean loss, which is near zero
        everywhere once a network is trained.

        Parameters
        ----------
        matrix : Matrix
        """
        weight = matrix.weight
        if self.by == "magnitude":
            return weight.abs()
        if self.by == "random":
            drawn = torch.rand(weight.shape, generator=self.generator, dtype=torch.float64)
            return drawn.to(weight.device)
        slopes = [matrix.jacobian(rows).square().mean(1) for rows in matrix.chunks()]
        return weight.square() * torch.cat(slopes)


def pathway_costs(matrix: Matrix, kept: Tensor, pattern: tuple[int, int] | None = None) -> Tensor:
    """Return what each weight costs in outputs when its row is thinned to the end, shape (R, C).

    See `reconstruction`: walks from the data through the edge and on to the outputs, with what the row's
    other edges can make up for taken off.

    Parameters
    ----------
    matrix : Matrix
    kept : Tensor of bool, shape (R, C)
    pattern : (n, m), optional
        See `removal_costs`.
    """
    parts = [
        removal_costs(matrix.weight[rows], cost_matrices(matrix, rows), kept[rows], pattern)
        for rows in matrix.chunks()
    ]
    return torch.cat(parts)


def tile_costs(matrix: Matrix, kept: Tensor, size: int) -> Tensor:
    """Return what each tile of ``size`` x ``size`` weights costs if it goes alone and its rows are refitted.

    ``sum_rows w_g^T ((C^-1)_gg)^-1 w_g`` with g the tile's columns; shape (tiles down, tiles across).

    Parameters
    ----------
    matrix : Matrix
    kept : Tensor of bool, shape (R, C)
    size : int
    """
    columns = matrix.weight.shape[1]
    parts = []
    for rows in matrix.chunks():
        weight = matrix.weight[rows] * kept[rows]
        inverse = torch.linalg.inv(restricted(cost_matrices(matrix, rows), kept[rows]))
        across = []
        for start in range(0, columns, size):
            part = slice(start, min(columns, start + size))
            own = weight[:, part]
            across.append((own * torch.linalg.solve(inverse[:, part, part], own)).sum(-1))
        parts.append(torch.stack(across, dim=-1))
    return add_rows(torch.cat(parts), size)


def add_rows(values: Tensor, size: int) -> Tensor:
    """Return the sums of every ``size`` rows, the last ones of what is left."""
    return torch.stack([part.sum(0) for part in values.split(size)])


def compensated(matrix: Matrix, kept: Tensor) -> Tensor:
    """Return the matrix with only ``kept`` weights, each row fitted anew to the outputs.

    Parameters
    ----------
    matrix : Matrix
    kept : Tensor of bool, shape (R, C)
    """
    parts = [refit(matrix.weight[rows], cost_matrices(matrix, rows), kept[rows]) for rows in matrix.chunks()]
    return torch.cat(parts)


__all__ = ["CRITERIA", "Criterion", "Loss", "add_rows", "compensated", "loss", "pathway_costs", "tile_costs"]
