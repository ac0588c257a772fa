"""Whole hidden units: which ones to spare, what others take over, and the smaller module without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hoplens.compress.criteria import Criterion
from hoplens.compress.sensitivity import Matrix
from hoplens.errors import ParameterError, UnknownNameError, UnsupportedModelError, check_count
from hoplens.models.readers.copies import as_model
from hoplens.models.recurrent_model import RecurrentModel, build_model, describe_model

RIDGE = 1e-6  # of the mean square of the states: a unit that others repeat exactly costs next to nothing


@dataclass(eq=False)
class Reader:
    """A matrix that reads the units of one layer, and which of its columns do."""

    name: str
    bias: str | None
    columns: slice


def layer_names(model: RecurrentModel) -> list[str]:
    """Return the names of all layers and directions: ``l0``, ``l0_reverse``, ``l1``, ..."""
    core = model.core
    ways = ("", "_reverse") if core.bidirectional else ("",)
    return [f"l{level}{way}" for level in range(core.num_layers) for way in ways]


def readers_of(model: RecurrentModel) -> dict[str, list[Reader]]:
    """Return for every layer the matrices that read its units."""
    core = model.core
    if getattr(core, "proj_size", 0):
        raise UnsupportedModelError(
            "an LSTM with proj_size shows a projection, not its units, so units cannot be cut out; prune "
            "weights, or train it without proj_size"
        )
    state, size = model.state_dict(), core.hidden_size
    ways = ("", "_reverse") if core.bidirectional else ("",)
    found: dict[str, list[Reader]] = {}
    for level in range(core.num_layers):
        for direction, way in enumerate(ways):
            part = slice(direction * size, (direction + 1) * size)
            above = [f"core.weight_ih_l{level + 1}{other}" for other in ways]
            if level + 1 == core.num_layers:
                above = ["readout.weight"]
            places = [(f"core.weight_hh_l{level}{way}", slice(0, size)), *((name, part) for name in above)]
            found[f"l{level}{way}"] = [
                Reader(name, bias if (bias := name.replace("weight", "bias")) in state else None, columns)
                for name, columns in places
            ]
    return found


class Folding:
    """The units of one layer, taken out one after the other while the others take over.

    A unit's state is predicted from the states that stay and a constant, by least squares over the steps at
    which it is read; its readers then read the prediction. With r the mean square of what cannot be
    predicted and ``o = sum_t E (adjoint_t . W[:, j])^2`` how strongly the outputs feel it, its cost is r o,
    summed over readers.
    """

    def __init__(
        self, readers: list[Reader], matrices: Mapping[str, Matrix], state: dict[str, Tensor]
    ) -> None:
        self.readers, self.state = readers, state
        self.inverses, self.energies = [], []
        for reader in readers:
            matrix = matrices[reader.name]
            seen = matrix.seen[..., reader.columns]
            if reader.bias is not None:
                seen = torch.cat([seen, torch.ones_like(seen[..., :1])], dim=-1)
            weighed = matrix.adjoint.square().sum((0, 1, 3))  # (L,): when it is read
            total = weighed.sum()
            shares = weighed / total if total > 0 else torch.full_like(weighed, 1 / len(weighed))
            spread = torch.einsum("l,blc,bld->cd", shares, seen, seen) / len(seen)
            level = spread.diagonal().mean()
            ridge = RIDGE * level if level > 0 else torch.ones_like(level)
            eye = torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
            self.inverses.append(torch.linalg.inv(spread + ridge * eye))
            flat = matrix.adjoint.flatten(0, 2)
            self.energies.append(flat.mT @ flat / matrix.adjoint.shape[1])
        self.gone = torch.zeros(self._weight(readers[0]).shape[1], dtype=torch.bool)

    def _weight(self, reader: Reader) -> Tensor:
        return self.state[reader.name][:, reader.columns]

    def costs(self) -> Tensor:
        """Return the cost of every unit that is left, shape (H,); infinite for the others."""
        total = torch.zeros(len(self.gone), dtype=torch.float64, device=self.inverses[0].device)
        for reader, inverse, energy in zip(self.readers, self.inverses, self.energies, strict=True):
            weight = self._weight(reader)
            felt = (weight * (energy @ weight)).sum(0)
            total += felt / inverse.diagonal()[: len(felt)].clamp_min(torch.finfo(felt.dtype).tiny)
        return total.masked_fill(self.gone.to(total.device), torch.inf)

    def remove(self, unit: int, *, compensate: bool) -> None:
        """Take one unit out: its columns become zero, and the others take over if asked to."""
        for n, reader in enumerate(self.readers):
            weight, inverse = self._weight(reader), self.inverses[n]
            own = weight[:, unit].clone()
            if compensate:
                share = -inverse[:, unit] / inverse[unit, unit]
                share[: len(self.gone)][self.gone.to(share.device)] = 0
                share[unit] = 0
                weight += own[:, None] * share[: weight.shape[1]]
                if reader.bias is not None:
                    self.state[reader.bias] += own * share[-1]
            weight[:, unit] = 0
            column = inverse[:, unit].clone()
            self.inverses[n] = inverse - column[:, None] * column / column[unit]
            self.inverses[n][unit, unit] = torch.inf  # never looked at again but as a cost of zero
            self.inverses[n][unit, :unit] = self.inverses[n][unit, unit + 1 :] = 0
            self.inverses[n][:unit, unit] = self.inverses[n][unit + 1 :, unit] = 0
        self.gone[unit] = True


def unit_scores(
    criterion: Criterion,
    model: RecurrentModel,
    layer: str,
    readers: list[Reader],
    matrices: Mapping[str, Matrix],
) -> Tensor:
    """Return magnitude, Taylor or random scores of a layer's units, shape (H,).

    The sum of the scores of all weights into and out of the unit; magnitude: of their squares.
    """
    power = 2 if criterion.by == "magnitude" else 1
    size = model.core.hidden_size
    total = matrices[readers[0].name].weight.new_zeros(size)
    for reader in readers:
        total += (criterion.plain(matrices[reader.name])[:, reader.columns] ** power).sum(0)
    for name in (f"core.weight_ih_{layer}", f"core.weight_hh_{layer}"):
        scores = criterion.plain(matrices[name]) ** power
        total += scores.unflatten(0, (-1, size)).sum((0, 2))
    return total


def thin_units(
    criterion: Criterion, model: RecurrentModel, count: int, *, compensate: bool
) -> tuple[RecurrentModel, dict[str, list[int]]]:
    """Return the smaller model with ``count`` units fewer in every layer, and the units that stay."""
    matrices = criterion.matrices(model)
    dtype = model.readout.weight.dtype
    state = {name: value.detach().double().clone() for name, value in model.state_dict().items()}
    kept = {}
    for layer, readers in readers_of(model).items():
        folding = Folding(readers, matrices, state)
        fixed: list[int] | None = None
        if criterion.by != "pathway":
            fixed = unit_scores(criterion, model, layer, readers, matrices).argsort(stable=True).tolist()
        for n in range(count):
            unit = int(folding.costs().argmin()) if fixed is None else fixed[n]
            folding.remove(unit, compensate=compensate)
        kept[layer] = [unit for unit in range(len(folding.gone)) if not folding.gone[unit]]
    return _cut(model, {name: value.to(dtype) for name, value in state.items()}, kept), kept


def remove_units(
    model: Any, units: Sequence[int] | Mapping[str, Sequence[int]], *, readout: nn.Linear | None = None
) -> RecurrentModel:
    """Return a smaller model without some hidden units.

    All rows of a unit's gates go, and every column that reads it, in the next layer and the read-out too.
    The outputs are those of the model in which these columns are zero, to rounding.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
        nn.RNN, nn.GRU, nn.LSTM (stacked or bidirectional, without projection) or LeakyRNN; left as it is.
    units : sequence of int, or dict of them
        The units to remove; of a model of several layers or directions by name, ``{"l0": [0, 3],
        "l0_reverse": [1, 2]}``, as many from each.
    readout : nn.Linear, optional
        After a bare core.

    Returns
    -------
    RecurrentModel

    Raises
    ------
    ParameterError
        If units do not exist, none would be left, or layers would lose different numbers.
    UnknownNameError
        If a layer is missing or does not exist.
    """
    own = as_model(model, readout, needs="weight_hh")
    names, size = layer_names(own), own.core.hidden_size
    readers_of(own)  # refuses projections
    named = dict(units) if isinstance(units, Mapping) else {names[0]: units}
    if set(named) != set(names):
        raise UnknownNameError(
            f"this model has the layers {', '.join(names)}, and units of each must be named, got "
            f"{', '.join(map(str, named)) or 'none'}"
        )
    gone = {layer: {check_count("unit", unit, least=0) for unit in group} for layer, group in named.items()}
    numbers = {len(group) for group in gone.values()}
    if len(numbers) > 1:
        raise ParameterError(
            "all layers must lose the same number of units, as torch's modules have one hidden_size, got "
            + ", ".join(f"{len(group)} of {layer}" for layer, group in gone.items())
        )
    if max((unit for group in gone.values() for unit in group), default=0) >= size or numbers == {size}:
        raise ParameterError(f"units must be numbers below {size}, not all of them, got {units!r}")
    kept = {layer: [unit for unit in range(size) if unit not in group] for layer, group in gone.items()}
    return _cut(own, {name: value.detach() for name, value in own.state_dict().items()}, kept)


def _cut(model: RecurrentModel, state: Mapping[str, Tensor], kept: Mapping[str, list[int]]) -> RecurrentModel:
    """Return the model of the kept units only."""
    core, size = model.core, model.core.hidden_size
    ways = ("", "_reverse") if core.bidirectional else ("",)
    small = dict(state)
    for layer, units in kept.items():
        rows = torch.tensor(units)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            name = f"core.{part}_{layer}"
            if name in small:
                small[name] = small[name].unflatten(0, (-1, size))[:, rows].flatten(0, 1)
        small[f"core.weight_hh_{layer}"] = small[f"core.weight_hh_{layer}"][:, rows]
    for level in range(core.num_layers):
        shown = [torch.tensor(kept[f"l{level}{way}"]) + n * size for n, way in enumerate(ways)]
        above = [f"core.weight_ih_l{level + 1}{way}" for way in ways]
        for name in above if level + 1 < core.num_layers else ["readout.weight"]:
            small[name] = small[name][:, torch.cat(shown)]
    left = len(next(iter(kept.values())))
    own = build_model({**describe_model(model), "hidden_size": left}, model.readout.weight.dtype)
    own.load_state_dict(small)
    if hasattr(core, "dropout"):
        own.core.dropout = core.dropout
    return own.to(model.readout.weight.device).eval()
