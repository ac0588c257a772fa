"""Few-bit weights and 8-bit activations: calibrated, fine-tuned, counted to the byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.compress.made import CompressedModel
from hoplens.compress.simulation import record, rounded, run_model
from hoplens.compress.tuning import fine_tune, loss, score
from hoplens.errors import ParameterError, check_choice, check_count
from hoplens.models.grids import (
    LARGEST,
    METHODS,
    Grid,
    activation_grid,
    fake_quantise,
    pack,
    row_scales,
    to_levels,
)
from hoplens.models.readers.copies import as_model
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.tensors import as_sequences, check_finite, check_lengths, check_targets

if TYPE_CHECKING:
    import pandas as pd

FLOAT = 4  # bytes of a float32: biases, scales, and every weight before


@dataclass(frozen=True, eq=False, repr=False)
class Quantised(CompressedModel):
    """A quantised model.

    Attributes
    ----------
    model : RecurrentModel
        Weights on their grids, as floats: for running, saving and exporting anywhere. Its activations are
        floats.
    form : {"int8", "int4", "ternary"}
    levels : dict of str to Tensor of int8
        The integer weights by the model's own names, shape (R, C).
    scales : dict of str to Tensor, shape (R, 1)
        ``model``'s weights are ``levels * scales``.
    grids : dict of str to Grid
        Grids of the activations, empty without calibration; names as in `hoplens.compress.simulation`.
    table : pandas.DataFrame
        One row a tensor: tensor, shape, form, bytes_before, bytes_after, max_error, max_scale. Biases stay
        in float32 and have that as their form.
    tried : pandas.DataFrame
        One row for each pair of ways to set scales: weights, activations, error (root mean squared change
        of the outputs on the calibration data, simulated).
    scores : dict of str to float
        With targets: "before" (the float model), "quantised" (after calibration) and "fine-tuned", on the
        data given; simulated but for "before". Accuracy for whole-number
        targets, else the explained share of the variance.
    """

    form: str
    levels: dict[str, Tensor]
    scales: dict[str, Tensor]
    grids: dict[str, Grid]
    table: pd.DataFrame = field(repr=False)
    tried: pd.DataFrame = field(repr=False)
    scores: dict[str, float]

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights and biases in float32."""
        return int(self.table["bytes_before"].sum())

    @property
    def n_bytes(self) -> int:
        """Bytes of packed weights, their scales in float32, and biases in float32."""
        return int(self.table["bytes_after"].sum())

    @property
    def counts(self) -> tuple[int, int]:
        """How many tensors are quantised, out of how many."""
        return len(self.levels), len(self.table)

    def packed(self) -> dict[str, Tensor]:
        """Return the integer weights as bytes: two int4 or five ternary values in one.

        Returns
        -------
        dict of str to Tensor of uint8
        """
        return {name: pack(levels, self.form) for name, levels in self.levels.items()}

    def simulate(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the model with weights and activations on their grids, in floats: a simulation.

        `hoplens.export_int8` writes the file that computes with integers.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)
        lengths : Tensor of int64, shape (B,), optional

        Returns
        -------
        Tensor, shape (B, O), or (B, L, O) where ``model.info.every_step``
        """
        with torch.no_grad():
            return run_model(
                self.model, dict(self.model.state_dict()), inputs, lengths, tap=rounded(self.grids)
            )


def quantise(
    model: Any,
    form: str = "int8",
    *,
    readout: Any = None,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
    targets: Tensor | None = None,
    scales: str = "best",
    steps: int = 0,
    lr: float = 1e-3,
    batch: int = 64,
    seed: int = 0,
) -> Quantised:
    """Round every weight matrix to a few levels a row, and activations to 8 bits.

    Each row of each matrix (input, recurrent, projection, read-out; every layer and direction) gets a scale
    of its own, levels lie symmetrically around 0, so that zeros stay zeros. Biases, states and gates stay
    float32. With ``steps`` the weights are then fine-tuned through the rounding (straight-through, scales
    learnt along); weights that are zero stay zero.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
        nn.RNN, nn.GRU, nn.LSTM (stacked, bidirectional, projected) or LeakyRNN.
    form : {"int8", "int4", "ternary"}, default "int8"
        Levels -127 .. 127, -7 .. 7, or -1 .. 1.
    readout : nn.Linear, optional
        After a bare core.
    inputs : Tensor, shape (B, L, I), optional
        Inputs that the scales of activations are set on and ways to set scales are compared on; also the
        training data of a fine-tuning. Without them weights alone are quantised, by least squared error.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of these sequences.
    targets : Tensor, optional
        Of these sequences: int64 classes, or numbers. Fine-tuning without targets aims at the
        outputs of the model itself.
    scales : {"best", "minmax", "percentile", "mse"}, default "best"
        How scales are set; "best" tries all for weights and activations and takes the pair that changes the
        outputs least.
    steps : int, default 0
        Steps of fine-tuning; 0: none.
    lr, batch, seed
        Of the fine-tuning: Adam's learning rate, sequences a step, seed of the draws.

    Returns
    -------
    Quantised

    Raises
    ------
    ParameterError
        For a fine-tuning or a choice of scales that needs calibration data and has none.
    """
    check_choice("form", form, LARGEST)
    check_choice("scales", scales, ("best", *METHODS))
    own = as_model(model, readout, needs="weight_ih")
    tensors = {name: value.detach().float() for name, value in own.state_dict().items()}
    own = own.float()
    for name, value in tensors.items():
        check_finite(name, value)
    if inputs is None and (targets is not None or check_count("steps", steps, least=0)):
        raise ParameterError("targets and fine-tuning need inputs=")
    data = None if inputs is None else as_sequences(inputs, own.n_inputs, "inputs").float()
    lengths = None if data is None else check_lengths(lengths, data)
    if targets is not None and data is not None:
        targets = check_targets(targets, len(data))
    chosen, grids, tried = _choose(own, tensors, form, scales, data, lengths)
    scores: dict[str, float] = {}

    def judge(name: str) -> None:
        if data is not None and targets is not None:
            shown = run_model(own, _on_grid(tensors, chosen, form), data, lengths, tap=rounded(grids))
            scores[name] = score(shown, targets)

    with torch.no_grad():
        if data is not None and targets is not None:
            scores["before"] = score(own(data, lengths), targets)
        judge("quantised")
    if steps:
        assert data is not None
        with torch.no_grad():
            aim = own(data, lengths) if targets is None else targets
        train = partial(fine_tune, steps=steps, lr=lr, batch=batch, seed=seed)
        tensors, chosen = _tune(own, tensors, chosen, grids, form, (data, aim, lengths), train)
        with torch.no_grad():
            judge("fine-tuned")
    levels = {n: to_levels(tensors[n], s, LARGEST[form]).to(torch.int8) for n, s in chosen.items()}
    final = _on_grid(tensors, chosen, form)
    own.load_state_dict(final)
    return Quantised(own, form, levels, chosen, grids, _table(tensors, final, chosen, form), tried, scores)


def _matrices(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, value in tensors.items() if "weight" in name and value.dim() >= 2]


def _on_grid(tensors: Mapping[str, Tensor], scales: Mapping[str, Tensor], form: str) -> dict[str, Tensor]:
    return {
        name: value if name not in scales else to_levels(value, scales[name], LARGEST[form]) * scales[name]
        for name, value in tensors.items()
    }


def _choose(
    model: RecurrentModel,
    tensors: dict[str, Tensor],
    form: str,
    scales: str,
    data: Tensor | None,
    lengths: Tensor | None,
) -> tuple[dict[str, Tensor], dict[str, Grid], pd.DataFrame]:
    """Return scales of the weights, grids of the activations, and what was tried."""
    import pandas as pd

    methods = METHODS if scales == "best" else (scales,)
    if data is None:
        method = "mse" if scales == "best" else scales
        found = {name: row_scales(tensors[name], form, method) for name in _matrices(tensors)}
        return (
            found,
            {},
            pd.DataFrame({"weights": [method], "activations": ["float32"], "error": [torch.nan]}),
        )
    weights = {m: {n: row_scales(tensors[n], form, m) for n in _matrices(tensors)} for m in methods}
    seen = record(model, tensors, data, lengths)
    grids = {m: {n: activation_grid(v, m) for n, v in seen.items()} for m in methods}
    rows, best, least = [], (weights[methods[0]], grids[methods[0]]), torch.inf
    with torch.no_grad():
        wanted = model(data, lengths)
        for by, own in weights.items():
            on_grid = _on_grid(tensors, own, form)
            for also, grid in grids.items():
                got = run_model(model, on_grid, data, lengths, tap=rounded(grid))
                error = float((got - wanted).square().mean().sqrt())
                rows.append((by, also, error))
                if error < least:
                    best, least = (own, grid), error
    return *best, pd.DataFrame(rows, columns=["weights", "activations", "error"])


def _tune(
    model: RecurrentModel,
    tensors: dict[str, Tensor],
    scales: dict[str, Tensor],
    grids: dict[str, Grid],
    form: str,
    data: tuple[Tensor, Tensor, Tensor | None],
    train: Callable[..., None],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return tensors and scales after fine-tuning through the rounding; the old ones if it did harm."""
    inputs, targets, lengths = data
    leaves = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    kept = {name: (tensors[name] != 0).to(tensors[name]) for name in scales}  # pruned weights stay zero
    # a scale's logarithm, so that a step changes it by a share and it stays positive
    logs = {name: value.log().requires_grad_() for name, value in scales.items()}
    see = rounded(grids)

    def run(x: Tensor, sizes: Tensor | None) -> Tensor:
        on_grid = {
            name: fake_quantise(leaf * kept[name], logs[name].exp(), LARGEST[form]) if name in logs else leaf
            for name, leaf in leaves.items()
        }
        return run_model(model, on_grid, x, sizes, tap=see)

    def whole() -> float:
        with torch.no_grad():
            return float(loss(run(inputs, lengths), targets))

    before = whole()
    parameters = [*leaves.values(), *logs.values()]
    train(run, parameters, inputs, targets, lengths)
    if not whole() < before:
        return tensors, scales
    return (
        {name: leaf.detach() * kept.get(name, 1.0) for name, leaf in leaves.items()},
        {name: log.detach().exp() for name, log in logs.items()},
    )


def _table(
    tensors: Mapping[str, Tensor], final: Mapping[str, Tensor], scales: Mapping[str, Tensor], form: str
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for name, value in tensors.items():
        after, largest = value.numel() * FLOAT, 0.0
        if name in scales:
            after = len(pack(torch.zeros(value.shape), form)) + scales[name].numel() * FLOAT
            largest = float(scales[name].max())
        rows.append(
            {
                "tensor": name,
                "shape": tuple(value.shape),
                "form": form if name in scales else "float32",
                "bytes_before": value.numel() * FLOAT,
                "bytes_after": after,
                "max_error": float((final[name] - value).abs().max()),
                "max_scale": largest,
            }
        )
    return pd.DataFrame(rows)
