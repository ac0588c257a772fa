"""Fine-tuning of a changed model, and how well a model does: shared by all ways to compress."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hoplens.data.sets import IGNORED
from hoplens.errors import ParameterError, ShapeError, check_count, check_number
from hoplens.seeds import generator

CLIP = 1.0  # largest norm of a gradient


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss: cross-entropy for whole-number targets (classes), else the squared error.

    ``outputs`` (..., O). ``targets`` (...,), or of the outputs' shape: classes of -100 do not count.
    """
    _check(outputs, targets)
    if targets.is_floating_point():
        return torch.nn.functional.mse_loss(outputs, targets.to(outputs))
    return torch.nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return what each sequence takes away from the score, float64 (N,); 1 minus their mean is the score.

    Classes: the share of wrong ones, weighted by valid steps. Values: the squared error over the variance of
    the targets. ``outputs`` (N, O) or (N, L, O); ``targets`` as of `loss`.
    """
    _check(outputs, targets)
    if not targets.is_floating_point():
        valid = (targets != IGNORED).double()
        wrong = (outputs.argmax(-1) != targets).double() * valid
        return wrong.reshape(len(targets), -1).sum(1) * len(targets) / valid.sum()
    aimed = targets.to(outputs).double()
    variance = aimed.flatten(0, -2).var(dim=0, correction=0).mean()
    return (outputs.double() - aimed).square().reshape(len(targets), -1).mean(1) / variance


def score(outputs: Tensor, targets: Tensor) -> float:
    """Return accuracy for whole-number targets, else the explained share of the targets' variance."""
    return 1 - float(losses(outputs, targets).mean())


def _check(outputs: Tensor, targets: Tensor) -> None:
    wanted = outputs.shape if targets.is_floating_point() else outputs.shape[:-1]
    if targets.shape != wanted:
        raise ShapeError(
            f"targets must have shape {tuple(outputs.shape)} (numbers) or {tuple(outputs.shape[:-1])} "
            f"(int64 classes), got {targets.dtype} {tuple(targets.shape)}"
        )
    if not targets.is_floating_point():
        classes = targets[targets != IGNORED]
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < outputs.shape[-1]:
            raise ParameterError(
                f"classes must be 0 to {outputs.shape[-1] - 1}, as there are {outputs.shape[-1]} outputs, "
                f"got {int(classes.min())} to {int(classes.max())}; use {IGNORED} for what should not count"
            )


def fine_tune(
    run: Callable[[Tensor, Tensor | None], Tensor],
    parameters: Sequence[Tensor],
    inputs: Tensor,
    targets: Tensor,
    lengths: Tensor | None = None,
    *,
    steps: int,
    lr: float = 1e-3,
    batch: int = 64,
    seed: int = 0,
) -> None:
    """Train parameters in place with Adam; the learning rate falls linearly to 0.

    ``run``: takes inputs (B, L, I) and lengths or None, returns outputs. ``parameters``: leaves that require
    a gradient. ``inputs``, ``targets``, ``lengths``: all training data; each step draws ``batch`` of them.
    ``seed``: of the draws; the global random state is not touched.
    """
    check_count("steps", steps)
    check_number("lr", lr, above=0.0)
    source = generator("order of fine-tuning data", seed)
    optimiser = torch.optim.Adam(parameters, lr=lr)
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(inputs), (check_count("batch", batch),), generator=source)
            value = loss(run(inputs[rows], None if lengths is None else lengths[rows]), targets[rows])
            grads = torch.autograd.grad(value, parameters, allow_unused=True)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
            optimiser.step()
    for parameter in parameters:
        parameter.grad = None
