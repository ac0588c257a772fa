"""Train many networks on a data set of sequences as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.data.sets import SequenceData, Split
from hoplens.errors import (
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    check_choice,
    check_count,
    check_number,
)
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import CELLS
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.training.loop import Loop, neighbours, runs
from hoplens.training.objective import PenaltyGroup
from hoplens.training.recipes import Recipe
from hoplens.training.sequences.batches import SequenceStream
from hoplens.training.sequences.ensemble import SequenceEnsemble
from hoplens.training.sequences.initial import create_sequence_ensemble
from hoplens.training.sequences.losses import chance_loss, measures
from hoplens.training.sequences.objective import AT, SequenceObjective
from hoplens.training.settings import Network, Settings
from hoplens.training.training import check_mask

if TYPE_CHECKING:
    import pandas as pd

EVALUATION_CELLS = 1 << 22  # states (L * E * H * B) computed at once in evaluation, to bound memory


@dataclass(frozen=True)
class SequenceSettings(Settings):
    """How training on a data set runs; shared by all networks of an ensemble.

    Parameters
    ----------
    cell : {"tanh", "leaky", "gru", "lstm"}, default "tanh"
    horizon : int, optional
        Time steps that pathway penalties cover; default the longest training sequence.
    at : {"raw", "origin", "mean"}, optional
        Where the cell is linearised for pathway penalties: its weights ("raw", tanh and leaky only, their
        default), state and input zero ("origin", default of gated cells), or the mean state and input of each
        batch.

    See `hoplens.training.settings.Settings` for the others.
    """

    cell: str = "tanh"
    horizon: int | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("cell", self.cell, CELLS)
        if self.horizon is not None:
            check_count("horizon", self.horizon)
        if self.at is not None:
            check_choice("at", self.at, AT)
        if self.activation != "tanh" or self.eager:
            raise ParameterError("data sets are learnt by tanh cells and by hand-written gradients only")


@dataclass(frozen=True, eq=False)
class SequenceResult:
    """Networks trained on a data set, and how they did.

    Attributes
    ----------
    data : SequenceData
        What they were trained on.
    networks : tuple of Network
        Recipe, strength and seed of each, in the order of every E axis.
    ensemble : SequenceEnsemble
        The trained weights. A network that diverged holds its last finite weights.
    settings : SequenceSettings
    losses : Tensor, shape (steps, E)
        Training loss without penalty; NaN after a divergence.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
    metrics : pandas.DataFrame
        One row a network: method, strength, seed; for each of validation and test ``loss`` and ``error``
        (lower is better: 1 - accuracy, bits a step, nats a step, or share of the targets' variance) and
        where there are, ``accuracy`` or ``f1``, with the split's name in front; nonzero (recurrent weights);
        diverged_at.
    """

    data: SequenceData
    networks: tuple[Network, ...]
    ensemble: SequenceEnsemble
    settings: SequenceSettings
    losses: Tensor
    diverged_at: Tensor
    metrics: pd.DataFrame = field(repr=False)

    @property
    def pathways(self) -> Pathways:
        """The trained graphs, axis E in the order of ``metrics``: raw, or linearised at the origin."""
        net = self.ensemble.pathways()
        return Pathways(
            net.w_in,
            net.w_rec,
            net.w_out,
            leak=net.leak,
            input_names=self.data.input_names,
            output_names=self.data.output_names,
            hidden_names=net.hidden_names,
            hidden_modules=net.hidden_modules,
            provenance=net.provenance,
        )

    def model(self, n: int) -> RecurrentModel:
        """Return one network as a module of its own, with names and normalisation of its data set.

        Parameters
        ----------
        n : int
            Row of ``metrics``.
        """
        data = self.data
        info = ModelInfo(
            every_step=data.every_step,
            input_names=data.input_names,
            output_names=data.output_names,
            input_mean=tuple(data.mean.tolist()),
            input_scale=tuple(data.scale.tolist()),
        )
        return self.ensemble.model(n, info)

    def evaluate(self, split: str = "test", ensemble: SequenceEnsemble | None = None) -> dict[str, Tensor]:
        """Return the measures of every network on a split; see ``metrics``.

        Parameters
        ----------
        split : {"train", "validation", "test"}
        ensemble : SequenceEnsemble, optional
            Other weights, pruned ones for example; default the trained ones.
        """
        check_choice("split", split, ("train", "validation", "test"))
        return evaluate(ensemble or self.ensemble, getattr(self.data, split), self.data.form)


def evaluate(ensemble: SequenceEnsemble, split: Split, form: str) -> dict[str, Tensor]:
    """Return measures of every network on a split, each of shape (E,).

    Parameters
    ----------
    ensemble : SequenceEnsemble
    split : Split
    form : str
        See `SequenceData`.
    """
    inputs = split.inputs.to(ensemble.weight)
    lengths = split.lengths.to(inputs.device)
    size = max(1, EVALUATION_CELLS // (split.length * ensemble.size * ensemble.n_hidden))
    with torch.no_grad():
        parts = [
            ensemble.predict(x, n) if form == "class" else ensemble.predict_steps(x)
            for x, n in zip(inputs.split(size), lengths.split(size), strict=True)
        ]
        return measures(torch.cat(parts, dim=1), split, form)


def train_sequences(
    data: SequenceData,
    recipe: Recipe | Sequence[Recipe],
    *,
    seeds: Sequence[int] = (0,),
    strengths: Sequence[float] = (1e-3,),
    cell: str = "tanh",
    hidden: int = 32,
    steps: int = 1000,
    batch: int = 32,
    lr: float = 6e-3,
    decay: float = 0.7,
    clip: float = 1.0,
    leak: float = 0.5,
    horizon: int | None = None,
    at: str | None = None,
    mask: Tensor | None = None,
    w_rec: Tensor | None = None,
    input_units: Tensor | None = None,
    output_units: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> SequenceResult:
    """Train one network for every recipe, strength and seed on a data set, all as one batch.

    Results depend on seeds, strengths and settings only: a network comes out the same, up to rounding,
    whatever it is trained beside. Networks of the same seed see the same batches, so that methods can be
    compared in pairs. The global random state is not touched.

    Parameters
    ----------
    data : SequenceData
        From `hoplens.data`, or an own one.
    recipe : Recipe or sequence of Recipe
        From `hoplens.recipes`. One without strength is trained once a seed, with strength 0.
    seeds : sequence of int
        Seeds of weights, order of data, and dropout.
    strengths : sequence of float
        Factors of the penalty; coefficients of weight decay; dropout rates.
    cell : {"tanh", "leaky", "gru", "lstm"}, default "tanh"
    hidden, steps, batch, lr, decay, clip
        See `hoplens.training.settings.Settings`; a batch is at most the training split.
    leak : float, default 0.5
        Of the leaky cell.
    horizon, at
        See `SequenceSettings`.
    mask : Tensor of bool, shape (H, H) or (E, H, H), optional
        Recurrent weights that exist, ``mask[i, j]`` for the edge j -> i, in every gate; the others are 0 from
        start to end.
    w_rec : Tensor, shape (H, H) or (E, H, H), optional
        Recurrent matrix to start from (of a gated cell, that of its candidate).
    input_units, output_units : Tensor of bool, shape (H,), optional
        Units that the inputs enter, and that the read-out sees; default all.
    device, dtype
        Where and in what precision to train.
    progress : callable, optional
        Called as ``progress(steps done, steps)`` now and then.

    Returns
    -------
    SequenceResult

    Raises
    ------
    ParameterError
        For settings out of range, or no network at all.
    ShapeError
        If a sequence is shorter than the horizon asks, or mask or w_rec do not fit.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    networks = [
        Network(r, float(strength), int(seed))
        for r in recipes
        for strength in (strengths if r.has_strength else (0.0,))
        for seed in seeds
    ]
    settings = SequenceSettings(
        hidden=hidden,
        steps=steps,
        batch=batch,
        lr=lr,
        decay=decay,
        clip=clip,
        leak=leak,
        cell=cell,
        horizon=horizon,
        at=at,
    )
    return train_sequence_networks(
        data,
        networks,
        settings,
        mask=mask,
        w_rec=w_rec,
        input_units=input_units,
        output_units=output_units,
        device=device,
        dtype=dtype,
        progress=progress,
    )


def train_sequence_networks(
    data: SequenceData,
    networks: Sequence[Network],
    settings: SequenceSettings,
    *,
    mask: Tensor | None = None,
    w_rec: Tensor | None = None,
    input_units: Tensor | None = None,
    output_units: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> SequenceResult:
    """Train any mixture of networks of one shape as one batch; see `train_sequences`."""
    _check(data, networks, settings)
    settings.check_memory(
        len(networks),
        n_inputs=data.n_inputs,
        n_outputs=data.n_outputs,
        length=data.length,
        dtype=dtype,
        device=device,
    )
    order = torch.tensor(neighbours(networks))
    ordered = [networks[n] for n in order.tolist()]
    mask = check_mask(mask, len(networks), settings.hidden)
    loop = make_loop(
        data,
        ordered,
        settings,
        device,
        dtype,
        mask=mask[order] if mask is not None and mask.dim() == 3 else mask,
        w_rec=w_rec[order] if w_rec is not None and w_rec.dim() == 3 else w_rec,
        input_units=_check_units("input_units", input_units, settings.hidden),
        output_units=_check_units("output_units", output_units, settings.hidden),
    )
    loop.train(progress)
    back = torch.argsort(order).to(loop.losses.device)
    assert isinstance(loop.trained, SequenceEnsemble)
    ensemble, diverged = loop.trained.select(back), loop.diverged_at[back]
    frame = _metrics(data, networks, ensemble, diverged)
    return SequenceResult(data, tuple(networks), ensemble, settings, loop.losses[:, back], diverged, frame)


def _check(data: SequenceData, networks: Sequence[Network], settings: SequenceSettings) -> None:
    if not isinstance(data, SequenceData):
        raise UnsupportedModelError(
            f"data must be a SequenceData, got {type(data).__name__}; use a loader of hoplens.data"
        )
    if not networks:
        raise ParameterError("nothing to train: give at least one recipe, strength and seed")
    if settings.horizon is not None and settings.horizon > data.length:
        raise ShapeError(
            f"horizon must be at most the {data.length} steps of the longest sequence of {data.name}, got "
            f"{settings.horizon}"
        )
    for network in networks:
        check_number("strength", network.strength, least=0.0)
        if network.recipe.uses == "dropout":
            check_number("dropout rate", network.strength, least=0.0, below=1.0)
        check_count("seed", network.seed, least=0)


def make_loop(
    data: SequenceData,
    networks: Sequence[Network],
    settings: SequenceSettings,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    mask: Tensor | None = None,
    w_rec: Tensor | None = None,
    input_units: Tensor | None = None,
    output_units: Tensor | None = None,
) -> Loop:
    """Return the training run of networks, those of a recipe side by side; see `train_sequences`."""
    device = torch.device(device)
    seeds = [n.seed for n in networks]
    horizon = settings.horizon or data.length
    ensemble = create_sequence_ensemble(
        seeds,
        [n.recipe.init for n in networks],
        cell=settings.cell,
        n_inputs=data.n_inputs,
        hidden=settings.hidden,
        n_outputs=data.n_outputs,
        length=min(horizon, max(1, settings.hidden // 2)),  # delay lines take half of the units, no more
        leak=settings.leak,
        w_rec=w_rec,
        dtype=dtype,
        device=device,
    )
    stream = SequenceStream(data, seeds, settings.batch, device, dtype)
    strengths = torch.tensor([n.strength for n in networks], dtype=dtype, device=device)
    dropped = torch.tensor([n.recipe.uses == "dropout" for n in networks], device=device)
    options: dict[str, Any] = {"readouts": "every", "length": data.length} if data.every_step else {}
    groups = [
        PenaltyGroup(rows, networks[rows.start].recipe.penalty(horizon, **options), strengths[rows])
        for terms, rows in runs(networks, lambda network: network.recipe.terms)
        if terms
    ]
    objective = SequenceObjective(
        ensemble,
        stream,
        groups,
        length=data.length,
        at=settings.at,
        rates=strengths * dropped if bool(dropped.any()) else None,
        there=_terminals(ensemble, input_units, output_units),
    )
    h = settings.hidden
    wiring = None
    if mask is not None:
        wide = mask.mT.to(ensemble.weight).repeat(*([1] * (mask.dim() - 1)), ensemble.kernel.blocks)
        wiring = torch.ones_like(ensemble.recurrent()) * wide * ensemble.structure()[:h]
    return Loop(
        ensemble,
        stream,
        objective,
        networks,
        settings,
        chance=chance_loss(data),
        horizon=horizon,
        wiring=wiring,
    )


def _check_units(name: str, units: Tensor | None, hidden: int) -> Tensor | None:
    if units is None:
        return None
    units = torch.as_tensor(units)
    if units.dtype != torch.bool or tuple(units.shape) != (hidden,) or not bool(units.any()):
        raise ShapeError(
            f"{name} must be a bool tensor of shape ({hidden},) with at least one True, got {units.dtype} of "
            f"shape {tuple(units.shape)}"
        )
    return units


def _terminals(
    ensemble: SequenceEnsemble, input_units: Tensor | None, output_units: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Set the weights between inputs or read-out and other units to 0; return what is there."""
    if input_units is None and output_units is None:
        return None
    h, weight, readout = ensemble.n_hidden, ensemble.structure(), torch.ones_like(ensemble.readout[0])
    if input_units is not None:
        weight[h:-1] *= input_units.to(weight).repeat(ensemble.kernel.blocks)
    if output_units is not None:
        readout *= output_units.to(readout)
    ensemble.weight.mul_(weight)
    ensemble.readout.mul_(readout)
    return weight, readout


def _metrics(
    data: SequenceData, networks: Sequence[Network], ensemble: SequenceEnsemble, diverged: Tensor
) -> pd.DataFrame:
    import pandas as pd

    lost = diverged >= 0
    columns: dict[str, Any] = {
        "method": [n.recipe.name for n in networks],
        "strength": [n.strength for n in networks],
        "seed": [n.seed for n in networks],
    }
    for name in ("validation", "test"):
        for measure, values in evaluate(ensemble, getattr(data, name), data.form).items():
            columns[f"{name}_{measure}"] = values.double().masked_fill(lost, math.nan).cpu().numpy()
    columns["nonzero"] = ensemble.nonzero().cpu().numpy()
    columns["diverged_at"] = diverged.cpu().numpy()
    return pd.DataFrame(columns)


__all__ = [
    "SequenceResult",
    "SequenceSettings",
    "evaluate",
    "make_loop",
    "train_sequence_networks",
    "train_sequences",
]
