"""How well trained networks do on test data that no training has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.data.sets import Split
from hoplens.data.streams import TrainingTask
from hoplens.models.ensemble import Ensemble
from hoplens.seeds import generator
from hoplens.training.losses import measures

EVALUATION_CELLS = 1 << 22  # states (L * E * H * B) computed at once, to bound memory
EVALUATION_BATCH = 512  # test sequences run at once, to bound memory


def evaluate(
    task: TrainingTask,
    ensemble: Ensemble,
    *,
    samples: int = 4096,
    seed: int = 0,
    validation: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return test error and accuracy of every network, each of shape (E,).

    Parameters
    ----------
    task : TrainingTask
        Draws the same test data for every network.
    ensemble : Ensemble
        The networks.
    samples : int, default 4096
        Number of test sequences.
    seed : int, default 0
        Of the test data; never the training data of any seed.
    validation : bool, default False
        Draw from a stream of its own, by which something may be chosen.

    Returns
    -------
    error : Tensor, shape (E,)
        Mean squared error as a share of the target variance; for targets of form "sign" that of the
        predicted probability.
    accuracy : Tensor, shape (E,)
        Share of outputs on the right side of 0 (of the logit, for "sign").
    """
    device, dtype = ensemble.weight.device, ensemble.weight.dtype
    if validation:
        source = generator("validation data", seed, device=device)
    else:
        source = generator("test data", seed, device=device)
    inputs, targets = task.sample(samples, generator=source, dtype=dtype)
    predict = ensemble.predict if targets.dim() == 2 else ensemble.predict_steps
    with torch.no_grad():
        outputs = torch.cat([predict(part) for part in inputs.split(EVALUATION_BATCH)], dim=1)
    positive = targets > (0.5 if task.form == "sign" else 0.0)
    axes = tuple(range(1, outputs.dim()))
    accuracy = ((outputs > 0) == positive).to(dtype).mean(dim=axes)
    if task.form == "sign":
        outputs = outputs.sigmoid()
    variance = targets.flatten(0, -2).var(dim=0, correction=0).mean()
    error = (outputs - targets).square().mean(dim=axes) / variance
    return error, accuracy


def evaluate_split(ensemble: Ensemble, split: Split, form: str) -> dict[str, Tensor]:
    """Return measures of every network on a split of a data set, each of shape (E,).

    Parameters
    ----------
    ensemble : Ensemble
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


__all__ = ["evaluate", "evaluate_split"]
