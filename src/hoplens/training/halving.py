"""Strengths chosen while networks train: all as one batch, the losers dropped by successive halving.

Jamieson and Talwalkar 2016 (arXiv:1502.07943). Of eight strengths four go on after the first rung, those
that do best on validation data, then two, then one, which trains to the end: 1.7 trainings of one in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask
from hoplens.models.ensemble import Ensemble
from hoplens.penalties.flow import FlowSpec
from hoplens.training.evaluation import evaluate, evaluate_split
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network
from hoplens.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd

RUNGS = ((0.04, 4), (0.12, 2), (0.3, 1))  # progress, and how many strengths of each recipe go on
SAMPLES = 2048  # validation sequences of a task
WEIGHTS = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FLOWS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
GRIDS = {"weight decay": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "dropout": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)}


def default_strengths(recipe: Recipe) -> tuple[float, ...]:
    """Return the strengths that are tried where none are given."""
    if not recipe.has_strength:
        return (0.0,)
    along_data = any(isinstance(term.penalty, FlowSpec) for term in recipe.terms)
    return GRIDS.get(recipe.uses, FLOWS if along_data else WEIGHTS)


def train_halving(
    run: Trainer, progress: Callable[[int, int], Any] | None = None
) -> tuple[Trainer, pd.DataFrame]:
    """Train to the end the strength of each recipe that does best on validation data.

    Seeds of a recipe choose together, by their mean. Returns the run that is left and one row a strength and
    rung: method, strength, progress, validation_error, kept.
    """
    import pandas as pd

    steps, rows = run.settings.steps, []
    for share, kept in RUNGS:
        if max(_counts(run.networks).values()) <= 1:
            break
        run.train(progress, until=max(1, round(share * steps)))
        errors = validation_errors(run)
        staying = _best(run.networks, errors, kept)
        for (recipe, strength), error in _means(run.networks, errors).items():
            stays = (recipe, strength) in staying
            rows.append((recipe.name, strength, share, error, stays))
        run = run.keep([n for n, w in enumerate(run.networks) if (w.recipe, w.strength) in staying])
    run.train(progress)
    columns = ["method", "strength", "progress", "validation_error", "kept"]
    return run, pd.DataFrame(rows, columns=columns)


def validation_errors(run: Trainer) -> Tensor:
    """Return the error of every network on validation data, shape (E,); infinite where it diverged."""
    source, ensemble = run.source, run.ensemble
    errors = _errors(source, ensemble)
    return errors.double().masked_fill((run.diverged_at >= 0) | ~errors.isfinite(), torch.inf)


def _errors(source: TrainingTask | SequenceData, ensemble: Ensemble) -> Tensor:
    if isinstance(source, SequenceData):  # the loss: errors of few sequences are often equal
        return evaluate_split(ensemble, source.validation, source.form)["loss"]
    return evaluate(source, ensemble, samples=SAMPLES, validation=True)[0]


Choice = tuple[Recipe, float]


def _means(networks: Sequence[Network], errors: Tensor) -> dict[Choice, float]:
    groups: dict[Choice, list[float]] = {}
    for network, error in zip(networks, errors.tolist(), strict=True):
        groups.setdefault((network.recipe, network.strength), []).append(error)
    return {choice: sum(values) / len(values) for choice, values in groups.items()}


def _counts(networks: Sequence[Network]) -> dict[Recipe, int]:
    choices = {(network.recipe, network.strength) for network in networks}
    recipes = [recipe for recipe, _ in choices]
    return {recipe: recipes.count(recipe) for recipe in recipes}


def _best(networks: Sequence[Network], errors: Tensor, count: int) -> set[Choice]:
    """Return the ``count`` strengths of each recipe of least mean error; of equals the smaller ones."""
    ranked = sorted(_means(networks, errors).items(), key=lambda item: (item[1], item[0][1]))
    staying: set[Choice] = set()
    for (recipe, strength), _ in ranked:
        if sum(known is recipe or known == recipe for known, _ in staying) < count:
            staying.add((recipe, strength))
    return staying


__all__ = ["default_strengths", "train_halving", "validation_errors"]
