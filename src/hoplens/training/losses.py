"""What targets ask of the outputs: losses and their slopes, the loss of a best guess, and measures."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from hoplens.data.sets import SequenceData, Split
from hoplens.data.streams import TrainingTask


def losses(outputs: Tensor, targets: Tensor, lengths: Tensor | None, form: str) -> Tensor:
    """Return the mean loss of every network over its valid read-outs, differentiable.

    Of tasks: "regression", the mean squared error; "sign", the mean binary cross-entropy of logits. Of data
    sets: cross-entropy (nats) for classes; the sum over labels of binary cross-entropies for "step labels";
    the mean over values of squared errors for "step values".

    Parameters
    ----------
    outputs : Tensor, shape (R, E, O, B)
        R = 1 where only the end of a sequence is read out, else L.
    targets : Tensor
        (E, B) for "class", (L, E, B) for "step class", (R, E, O, B) else.
    lengths : Tensor of int64, shape (E, B), or None
        Valid steps; None: all.
    form : str
        See `SequenceData` and `hoplens.data.streams.TrainingTask`.

    Returns
    -------
    Tensor, shape (E,)
    """
    if form == "regression":
        return (outputs - targets).square().mean(dim=(0, 2, 3))
    if form == "sign":
        cost = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return cost.mean(dim=(0, 2, 3))
    if form == "class":
        return _cross_entropy(outputs, targets[None]).mean(dim=(0, 2))
    if form == "step class":
        cost = _cross_entropy(outputs, targets.clamp_min(0))
    elif form == "step labels":
        cost = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(dim=2)
    else:
        cost = (outputs - targets).square().mean(dim=2)
    assert lengths is not None  # data sets have them
    return (cost * valid_steps(lengths, len(outputs))).sum(dim=(0, 2)) / lengths.sum(dim=1)


def loss_and_slopes(
    outputs: Tensor, targets: Tensor, lengths: Tensor | None, form: str
) -> tuple[Tensor, Tensor]:
    """Return the losses (E,) and their slopes by the outputs (R, E, O, B); see `losses`.

    Those of tasks are written out: autograd's own work would be a good part of a small network's step.
    """
    if form in ("regression", "sign"):
        share = 1.0 / (outputs.shape[0] * outputs.shape[2] * outputs.shape[3])
        if form == "sign":
            slopes = (outputs.sigmoid() - targets).mul_(share)
            return losses(outputs, targets, lengths, form), slopes
        slopes = outputs - targets
        return slopes.square().mean(dim=(0, 2, 3)), slopes.mul_(2 * share)
    with torch.enable_grad():
        outputs.requires_grad_()
        loss = losses(outputs, targets, lengths, form)
        (slopes,) = torch.autograd.grad(loss.sum(), outputs)
    return loss.detach(), slopes


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs.log_softmax(dim=2).gather(2, targets.unsqueeze(2)).squeeze(2)


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Return which steps are no padding, bool, shape (L, E, B).

    Parameters
    ----------
    lengths : Tensor of int64, shape (E, B)
    steps : int
        L.
    """
    return torch.arange(steps, device=lengths.device)[:, None, None] < lengths


def chance_loss(source: TrainingTask | SequenceData) -> float:
    """Return the training loss of the best constant guess.

    Parameters
    ----------
    source : TrainingTask or SequenceData
    """
    if not isinstance(source, SequenceData):
        return math.log(2.0) if source.form == "sign" else 1.0
    data, split = source, source.train
    if data.form in ("class", "step class"):
        seen = split.targets[split.mask] if data.form == "step class" else split.targets
        share = torch.bincount(seen, minlength=data.n_outputs).double() / len(seen)
        return float(-torch.xlogy(share, share).sum())
    valid = split.targets[split.mask].double()  # (steps, O)
    if data.form == "step labels":
        share = valid.mean(dim=0)
        return float(-(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)).sum())
    return float(valid.var(dim=0, correction=0).mean())


def measures(outputs: Tensor, split: Split, form: str) -> dict[str, Tensor]:
    """Return how well outputs fit a split; every measure of shape (E,).

    ``loss`` as in training, and

    * "class": ``accuracy``, ``error`` = 1 - accuracy;
    * "step class": ``accuracy``, ``error`` = loss in bits;
    * "step labels": ``f1`` of all labels of all steps together at probability 0.5, ``error`` = loss (nats a
      step);
    * "step values": ``error`` = mean squared error as a share of the targets' variance.

    Parameters
    ----------
    outputs : Tensor, shape (E, B, O), or (E, B, L, O) where there is a target a step
    split : Split
    form : str
    """
    if form == "class":
        outputs = outputs.mT[None]  # (1, E, O, B)
        targets = split.targets.expand(outputs.shape[1], -1)
    else:
        outputs = outputs.permute(2, 0, 3, 1)
        targets = split.targets.movedim(0, -1).unsqueeze(1)
        targets = targets.expand(-1, outputs.shape[1], *targets.shape[2:])
    lengths = split.lengths.expand(outputs.shape[1], -1)
    found = {"loss": losses(outputs, targets, lengths, form)}
    valid = valid_steps(lengths, len(outputs))
    count = lengths.sum(dim=1)
    if form == "class":
        found["accuracy"] = (outputs[0].argmax(dim=1) == targets).to(outputs).mean(dim=1)
        found["error"] = 1 - found["accuracy"]
    elif form == "step class":
        right = (outputs.argmax(dim=2) == targets) & valid
        found["accuracy"] = right.sum(dim=(0, 2)) / count
        found["error"] = found["loss"] / math.log(2.0)
    elif form == "step labels":
        said, true = (outputs > 0) & valid[:, :, None], (targets > 0.5) & valid[:, :, None]
        both = (said & true).sum(dim=(0, 2, 3))
        found["f1"] = 2 * both / (said.sum(dim=(0, 2, 3)) + true.sum(dim=(0, 2, 3))).clamp_min(1)
        found["error"] = found["loss"]
    else:
        seen = split.targets[split.mask].double()
        found["error"] = found["loss"] / float(seen.var(dim=0, correction=0).mean())
    return found


__all__ = ["chance_loss", "loss_and_slopes", "losses", "measures", "valid_steps"]
