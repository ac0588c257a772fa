"""The strength of a recipe, chosen by short trainings on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask
from hoplens.training.evaluation import evaluate
from hoplens.training.recipes import Recipe, default_strengths
from hoplens.training.result import TrainingResult
from hoplens.training.settings import Network, Settings

if TYPE_CHECKING:
    import pandas as pd

STEPS = 0.25  # share of the steps that a strength is tried for
SEEDS = 2  # seeds it is tried with, at most
TOLERANCE = 0.05  # of the least validation loss, where a sequence has one target: the strongest within it
SAMPLES = 2048  # validation sequences of a task


def search_strengths(
    source: TrainingTask | SequenceData,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    settings: Settings,
    train: Callable[[list[Network], Settings], TrainingResult],
) -> tuple[dict[Recipe, float], pd.DataFrame | None]:
    """Return each recipe's best strength on validation data after a short training, and all tried.

    Every strength of `default_strengths` trains a quarter of the steps, its learning rate falling to 0 within
    them, on at most two of the seeds, all as one batch. (Successive halving, which drops strengths while the
    learning rate is still high, keeps the weakest ones: a penalty pays late.)
    """
    tried = {recipe: default_strengths(recipe) for recipe in recipes}
    chosen = {recipe: strengths[0] for recipe, strengths in tried.items()}
    networks = [
        Network(recipe, strength, seed)
        for recipe, strengths in tried.items()
        if len(strengths) > 1
        for strength in strengths
        for seed in seeds[:SEEDS]
    ]
    if not networks:
        return chosen, None
    result = train(networks, replace(settings, steps=max(1, round(STEPS * settings.steps))))
    table = result.metrics[["method", "strength", "seed"]].copy()
    # of few targets the loss is noisy, and a strength too weak does more harm than one too strong
    tolerance = TOLERANCE if source.form == "class" else 0.0
    if isinstance(source, SequenceData):  # the loss: the errors of few sequences are often equal
        measure = "validation_loss"
        table[measure] = result.metrics[measure]
    else:
        measure = "validation_error"
        errors = evaluate(source, result.ensemble, samples=SAMPLES, validation=True)[0]
        table[measure] = errors.double().cpu().numpy()
    lost = (result.metrics["diverged_at"] >= 0) | table[measure].isna()
    table[measure] = table[measure].mask(lost, math.inf)
    for recipe in {network.recipe for network in networks}:
        own = table[[network.recipe == recipe for network in networks]]
        means = own.groupby("strength")[measure].mean()
        if not math.isfinite(means.min()):  # none was kept up to the end: the weakest does least harm
            chosen[recipe] = float(means.index.min())
            continue
        within = means[means <= means.min() * (1 + tolerance)]
        chosen[recipe] = max(float(strength) for strength in within.index.tolist())
    return chosen, table


__all__ = ["search_strengths"]
