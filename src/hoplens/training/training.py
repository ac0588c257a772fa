"""Train many networks as one batch, on a task or on a data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.data import registry as data_sets
from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask
from hoplens.data.tasks.registry import make as make_task
from hoplens.data.tasks.registry import names as task_names
from hoplens.errors import (
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    check_count,
    check_number,
    unknown_name,
)
from hoplens.lookup import look_up
from hoplens.memory import check_memory
from hoplens.models.ensemble import Ensemble
from hoplens.models.initial import check_mixes
from hoplens.models.recurrent_model import ModelInfo
from hoplens.progress import Progress, reporting
from hoplens.training.evaluation import evaluate, evaluate_split
from hoplens.training.recipes import Recipe
from hoplens.training.result import TrainingResult
from hoplens.training.settings import Network, Settings
from hoplens.training.strengths import search_strengths
from hoplens.training.trainer import Trainer, neighbours

if TYPE_CHECKING:
    import pandas as pd

Source = TrainingTask | SequenceData
LEAK = 0.5  # of the cell "leaky", where none is given
# a data set is gone through again and again, in batches that it fills; a task never repeats itself
STEPS, BATCH = {"task": 2000, "data": 1000}, {"task": 64, "data": 32}


def train(
    source: Source | str,
    recipe: Recipe | str | Sequence[Recipe | str],
    *,
    seeds: int | Sequence[int] = 1,
    strengths: float | Sequence[float] | str = 1e-3,
    cell: str = "tanh",
    hidden: int = 32,
    steps: int | None = None,
    batch: int | None = None,
    lr: float = 6e-3,
    decay: float = 0.7,
    clip: float = 1.0,
    leak: float | None = None,
    horizon: int | None = None,
    at: str | None = None,
    eager: bool = False,
    mask: Tensor | None = None,
    w_rec: Tensor | None = None,
    input_units: Tensor | None = None,
    output_units: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress = None,
) -> TrainingResult:
    """Train one network for every (recipe, strength, seed), all as one batch.

    A network's numbers depend on its recipe, strength and seed and on the settings only: trained alone
    it comes out the same to float tolerance. Networks of one seed see the same data, so that methods can
    be compared in pairs. The global random state is not touched.

    Parameters
    ----------
    source : Task, SequenceData or str
        From `hoplens.tasks.make` or `hoplens.data.load`; an own task that follows
        `hoplens.data.streams.TrainingTask`; or the name of a task or data set.
    recipe : Recipe, str, or sequence of them
        From `hoplens.recipes`, or by name. A recipe without penalty is trained once a seed, with strength 0.
    seeds : int or sequence of int, default 1
        Seeds of weights, data and dropout; a number n stands for 0 .. n - 1.
    strengths : float, sequence of float or "auto", default 1e-3
        Factors of the penalty; coefficients of weight decay; dropout rates. "auto": each recipe takes the
        best on validation data of up to eight that are trained for a quarter of the steps first, as one
        batch; ``result.search`` says how they did.
    cell : {"tanh", "relu", "linear", "leaky", "gru", "lstm", "mingru", "lru"}, default "tanh"
    hidden, lr, decay, clip, horizon, at, eager
        See `hoplens.training.settings.Settings`.
    steps : int, optional
        Optimiser steps; default 2000 on a task, 1000 on a data set.
    batch : int, optional
        Sequences a step; default 64 of a task, 32 of a data set, at most its training split.
    leak : float, optional
        Of a cell without gates; default 1, of "leaky" 0.5.
    mask : Tensor of bool, shape (H, H) or (E, H, H), optional
        Recurrent weights that exist, ``mask[i, j]`` for the edge j -> i, in every gate; the others are 0 from
        start to end. Networks come in the order of ``metrics``.
    w_rec : Tensor, shape (H, H) or (E, H, H), optional
        Recurrent matrix to start from (of a gated cell, that of its candidate).
    input_units, output_units : Tensor of bool, shape (H,), optional
        Units that the inputs enter, and that the read-out sees; default all.
    device, dtype
        Where and in what precision to train.
    progress : bool or callable, optional
        True: a bar; a callable is called as ``progress(steps done, steps)`` now and then.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ParameterError
        For settings out of range, or no network at all.
    ShapeError
        If a sequence is shorter than the horizon asks, or mask, w_rec or units do not fit.
    UnknownNameError
        For a name of a task, data set, recipe or cell that does not exist, with the nearest one.
    """
    source = _source(source)
    kind = "data" if isinstance(source, SequenceData) else "task"
    settings = Settings(
        hidden=hidden,
        steps=STEPS[kind] if steps is None else steps,
        batch=BATCH[kind] if batch is None else batch,
        lr=lr,
        decay=decay,
        clip=clip,
        cell=cell,
        leak=leak if leak is not None else LEAK if cell == "leaky" else 1.0,
        eager=eager,
        horizon=horizon,
        at=at,
    )
    options: dict[str, Any] = {
        "mask": mask,
        "w_rec": w_rec,
        "input_units": input_units,
        "output_units": output_units,
        "device": device,
        "dtype": dtype,
    }
    recipes, numbers = _recipes(recipe), _seeds(seeds)
    with reporting(progress, "training") as call:
        if isinstance(strengths, str):
            return _train_auto(source, recipes, numbers, settings, strengths, options, call)
        return train_networks(
            source, _networks(recipes, numbers, strengths), settings, **options, progress=call
        )


def _train_auto(
    source: Source,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    settings: Settings,
    strengths: str,
    options: dict[str, Any],
    progress: Any,
) -> TrainingResult:
    """Train every recipe at the strength that short trainings choose; see `search_strengths`."""
    if strengths != "auto":
        raise ParameterError(f'strengths= takes numbers or "auto", got {strengths!r}')
    if any(given is not None and given.dim() == 3 for given in (options["mask"], options["w_rec"])):
        raise ParameterError('strengths="auto" takes one mask= and w_rec= for all networks, (H, H)')

    def try_out(networks: list[Network], short: Settings) -> TrainingResult:
        return train_networks(source, networks, short, **options)

    chosen, table = search_strengths(source, recipes, seeds, settings, try_out)
    networks = [Network(recipe, chosen[recipe], seed) for recipe in recipes for seed in seeds]
    return replace(train_networks(source, networks, settings, **options, progress=progress), search=table)


def _source(source: Source | str) -> Source:
    if isinstance(source, str):
        if source in task_names():
            return make_task(source)
        if source in data_sets.names():
            return data_sets.load(source)
        raise unknown_name("task or data set", source, [*task_names(), *data_sets.names()])
    if not isinstance(source, SequenceData | TrainingTask):
        raise UnsupportedModelError(
            "what is learnt must be a task of hoplens.tasks.make, a data set of hoplens.data, or the name of "
            f"one, got {type(source).__name__}; an own task needs n_inputs, n_outputs, length, form and "
            "sample(n, generator=, dtype=)"
        )
    return source


def _recipes(recipe: Recipe | str | Sequence[Recipe | str]) -> list[Recipe]:
    listed = [recipe] if isinstance(recipe, Recipe | str) else list(recipe)
    # registered recipes are known to a layer above
    return [look_up("hoplens.studies.extensions:make_recipe")(r) if isinstance(r, str) else r for r in listed]


def _seeds(seeds: int | Sequence[int]) -> Sequence[int]:
    if isinstance(seeds, int):
        return range(check_count("seeds", seeds))
    # a range stays one: that its networks do not fit into memory is said before they are listed
    return seeds if isinstance(seeds, range) else [int(seed) for seed in seeds]


def _networks(
    recipes: Sequence[Recipe], seeds: Sequence[int], strengths: float | Sequence[float]
) -> list[Network]:
    factors = tuple(strengths) if isinstance(strengths, Iterable) else (strengths,)
    count = sum(len(seeds) * (len(factors) if r.has_strength else 1) for r in recipes)
    check_memory(f"a list of {count} networks", 200 * count, "take fewer seeds, strengths or recipes")
    return [
        Network(r, float(strength), int(seed))
        for r in recipes
        for strength in (factors if r.has_strength else (0.0,))
        for seed in seeds
    ]


def train_networks(
    source: Source,
    networks: Sequence[Network],
    settings: Settings,
    *,
    mask: Tensor | None = None,
    w_rec: Tensor | None = None,
    input_units: Tensor | None = None,
    output_units: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Any = None,
) -> TrainingResult:
    """Train any mixture of networks of one shape as one batch; see `train`."""
    source = _source(source)
    _check(source, networks, settings)
    settings.check_memory(
        len(networks),
        n_inputs=source.n_inputs,
        n_outputs=source.n_outputs,
        length=source.length,
        dtype=dtype,
        device=device,
    )
    if mask is not None:
        check_mixes(settings.cell, "mask")
    order = torch.tensor(neighbours(networks))

    def ordered(given: Tensor | None) -> Tensor | None:
        return given[order] if given is not None and given.dim() == 3 and len(given) == len(order) else given

    run = Trainer(
        source,
        [networks[n] for n in order.tolist()],
        settings,
        device=device,
        dtype=dtype,
        mask=ordered(check_mask(mask, len(networks), settings.hidden)),
        w_rec=ordered(w_rec),
        input_units=_check_units("input_units", input_units, settings.hidden),
        output_units=_check_units("output_units", output_units, settings.hidden),
    )
    run.train(progress)
    back = torch.argsort(order).to(run.losses.device)
    ensemble, diverged = run.ensemble.select(back), run.diverged_at[back]
    return TrainingResult(
        ensemble=ensemble,
        losses=run.losses[:, back],
        diverged_at=diverged,
        metrics=_metrics(source, networks, ensemble, diverged),
        info=_info(source, run.data.every_step),
        length=source.length,
        modules=(getattr(source, "input_modules", None), getattr(source, "output_modules", None)),
        task=source,
        networks=tuple(networks),
    )


def _check(source: Source, networks: Sequence[Network], settings: Settings) -> None:
    if not networks:
        raise ParameterError("nothing to train: give at least one recipe, strength and seed")
    if settings.horizon is not None and settings.horizon > source.length:
        name = getattr(source, "name", type(source).__name__)
        raise ShapeError(
            f"horizon must be at most the {source.length} steps of the longest sequence of {name}, got "
            f"{settings.horizon}"
        )
    for network in networks:
        check_number("strength", network.strength, least=0.0)
        if network.recipe.uses == "dropout":
            check_number("dropout rate", network.strength, least=0.0, below=1.0)
        check_count("seed", network.seed, least=0)


def check_mask(mask: Tensor | None, networks: int, hidden: int) -> Tensor | None:
    """Return the mask on the CPU, zeros and ones, or raise."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask).detach().cpu()
    shapes = ((hidden, hidden), (networks, hidden, hidden))
    if tuple(mask.shape) not in shapes:
        raise ShapeError(f"mask must have shape {shapes[0]} or {shapes[1]}, got {tuple(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ParameterError("mask must hold booleans, or zeros and ones; it says which weights exist")
    return mask


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


def _info(source: Source, every_step: bool) -> ModelInfo:
    if not isinstance(source, SequenceData):
        return ModelInfo(every_step=every_step)
    return ModelInfo(
        every_step=every_step,
        input_names=source.input_names,
        output_names=source.output_names,
        input_mean=tuple(source.mean.tolist()),
        input_scale=tuple(source.scale.tolist()),
    )


def _metrics(
    source: Source, networks: Sequence[Network], ensemble: Ensemble, diverged: Tensor
) -> pd.DataFrame:
    import pandas as pd

    lost = diverged >= 0
    measured: dict[str, Tensor] = {}
    if isinstance(source, SequenceData):
        for split in ("test", "validation"):
            for name, values in evaluate_split(ensemble, getattr(source, split), source.form).items():
                plain = split == "test" and name in ("accuracy", "f1")
                measured[name if plain else f"{split}_{name}"] = values
    else:
        measured["test_error"], measured["accuracy"] = evaluate(source, ensemble)
    return pd.DataFrame(
        {
            "method": [n.recipe.name for n in networks],
            "strength": [n.strength for n in networks],
            "seed": [n.seed for n in networks],
            **{k: v.double().masked_fill(lost, math.nan).cpu().numpy() for k, v in measured.items()},
            "nonzero": ensemble.nonzero().cpu().numpy(),
            "diverged_at": diverged.cpu().numpy(),
        }
    )


__all__ = ["check_mask", "train", "train_networks"]
