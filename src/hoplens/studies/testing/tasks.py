"""The contract of a task."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor

from hoplens.data.streams import TrainingTask
from hoplens.errors import ContractError
from hoplens.studies.testing.requiring import (
    F64,
    close,
    generator,
    keeps_randomness,
    name_of,
    require,
    what_came,
)
from hoplens.training import recipes
from hoplens.training.training import train

ERRORS = 6.0  # standard errors that a mean of samples may be off
SAMPLES = 4096


def check_task(
    task: Any, *, samples: int = SAMPLES, standardised: bool = True, portable: bool = True
) -> None:
    """Raise unless a task keeps what training and studies build on.

    * ``n_inputs``, ``n_outputs``, ``length`` are whole numbers; ``form`` is "regression" or "sign".
    * ``sample(n, generator=, dtype=)`` gives inputs (n, L, I) and targets (n, O) or (n, L, O), finite, of the
      dtype asked for, by the generator alone: the same twice, others for another seed, and global random
      numbers are left alone.
    * Targets are 0 and 1 for "sign"; for "regression" of mean 0 and variance 1, which makes errors comparable
      and which pruning relies on.
    * Where the task declares ``target_maps`` (L, O, I), with hop k = 2 .. L + 1 carrying the input of k - 2
      steps before the last: if ``is_linear``, they give the targets; with ``mean_input`` and
      ``clean_targets``, they are their Jacobian; ``signal_hops`` (L,) says which are not zero.
    * It can be trained, and sent to another process.

    Parameters
    ----------
    task : TrainingTask
    samples : int, default 4096
        Samples that means are taken over; six standard errors are allowed.
    standardised : bool, default True
        Ask for mean 0 and variance 1.
    portable : bool, default True
        Ask that it can be pickled, hashed and compared, as studies need; a frozen dataclass in a module can.

    Raises
    ------
    ContractError
    """
    require(
        isinstance(task, TrainingTask),
        f"{name_of(task)} must have n_inputs, n_outputs, length, form and sample()",
    )
    for name in ("n_inputs", "n_outputs", "length"):
        value = getattr(task, name)
        require(
            type(value) is int and value >= 1, f"{name} must be a whole number of at least 1, got {value!r}"
        )
    require(task.form in ("regression", "sign"), f'form must be "regression" or "sign", got {task.form!r}')
    _check_samples(task)
    _check_targets(task, samples, standardised)
    if getattr(task, "target_maps", None) is not None:
        _check_ground_truth(task)
    with keeps_randomness("training"):
        result = train(task, recipes.none(), seeds=[0], strengths=[0.0], hidden=4, steps=2, batch=4)
    require(bool(torch.isfinite(result.losses).all()), "two steps of training gave a loss that is not finite")
    if portable:
        _check_portable(task)


def _check_samples(task: TrainingTask) -> None:
    for n, dtype in ((1, torch.float32), (5, F64)):
        with keeps_randomness("sample"):
            batch = task.sample(n, generator=generator(7), dtype=dtype)
        require(isinstance(batch, tuple) and len(batch) == 2, "sample must return a pair (inputs, targets)")
        inputs, targets = batch
        shape = (n, task.length, task.n_inputs)
        require(tuple(inputs.shape) == shape, f"inputs must have shape {shape}, got {tuple(inputs.shape)}")
        shapes = ((n, task.n_outputs), (n, task.length, task.n_outputs))
        require(
            tuple(targets.shape) in shapes,
            f"targets must have shape {shapes[0]} or {shapes[1]}, got {tuple(targets.shape)}",
        )
        for name, value in (("inputs", inputs), ("targets", targets)):
            require(value.dtype == dtype, f"{name} must have the dtype asked for, {dtype}, got {value.dtype}")
            require(bool(torch.isfinite(value).all()), f"{name} hold NaN or infinity")
        again = task.sample(n, generator=generator(7), dtype=dtype)
        require(
            torch.equal(inputs, again[0]) and torch.equal(targets, again[1]),
            "sample gave other numbers for the same seed: draw from the generator only",
        )
        source = generator(7)
        task.sample(n, generator=source, dtype=dtype)
        for other, what in (
            (generator(8), "another seed"),
            (source, "the same generator, used a second time"),
        ):
            new = task.sample(n, generator=other, dtype=dtype)
            require(not torch.equal(inputs, new[0]), f"sample gave the same inputs for {what}")


def _check_targets(task: TrainingTask, samples: int, standardised: bool) -> None:
    _, targets = task.sample(samples, generator=generator(1), dtype=F64)
    flat = targets.reshape(-1, targets.shape[-1])
    if task.form == "sign":
        values = sorted(set(flat.unique().tolist()))
        require(values == [0.0, 1.0], f'targets of form "sign" must be 0 and 1, got {values[:4]}')
        return
    require(bool((flat.var(dim=0) > 0).all()), "an output's target never changes")
    if not standardised:
        return
    # steps of one sequence depend on each other: errors are those of so many sequences
    mean, variance = flat.mean(dim=0), flat.var(dim=0, correction=0)
    fourth = (flat - mean).pow(4).mean(dim=0)
    errors = {
        "mean 0": (mean.abs(), (variance / samples).sqrt()),
        "variance 1": ((variance - 1).abs(), ((fourth - variance**2).clamp_min(0) / samples).sqrt()),
    }
    for what, (gap, error) in errors.items():
        worst = int((gap - ERRORS * error).argmax())
        require(
            bool(gap[worst] <= ERRORS * error[worst] + 1e-9),
            f"targets must have {what}: output {worst} has mean {float(mean[worst]):.3g} and variance "
            f"{float(variance[worst]):.3g} over {samples} samples (standardised=False lets it pass)",
        )


def _check_ground_truth(task: Any) -> None:
    maps = task.target_maps
    shape = (task.length, task.n_outputs, task.n_inputs)
    require(
        isinstance(maps, Tensor) and tuple(maps.shape) == shape and maps.dtype == F64,
        f"target_maps must be a float64 tensor of shape {shape}, got {what_came(maps)}",
    )
    if (signal := getattr(task, "signal_hops", None)) is not None:
        require(
            torch.equal(signal, maps.abs().sum(dim=(1, 2)) > 0),
            "signal_hops must say (bool, shape (L,)) which hops of target_maps are not zero",
        )
    clean = getattr(task, "clean_targets", None)
    inputs, targets = task.sample(64, generator=generator(2), dtype=F64)
    if getattr(task, "is_linear", False):
        # hop k carries the input of k - 2 steps before the last: time runs backwards along the hops
        wanted = torch.einsum("koi,bki->bo", maps, inputs.flip(1))
        if clean is not None:
            close(
                wanted, clean(inputs), "target_maps do not give clean_targets of a task that says is_linear"
            )
        elif task.form == "regression" and not getattr(task, "target_noise", 0.0):
            last = targets if targets.dim() == 2 else targets[:, -1]
            close(wanted, last, "target_maps do not give the targets of a task that says is_linear")
    if clean is None:
        return
    if task.form == "sign" and not getattr(task, "target_noise", 0.0):
        require(torch.equal(targets, (clean(inputs) > 0).to(F64)), 'targets of form "sign" must be clean > 0')
    if (mean := getattr(task, "mean_input", None)) is None:
        return
    jacobian = torch.autograd.functional.jacobian(clean, mean)  # (O, L, I)
    close(maps, jacobian.permute(1, 0, 2).flip(0), "target_maps are not the Jacobian at mean_input")
    drawn = task.sample(SAMPLES, generator=generator(3), dtype=F64)[0]
    error = drawn.std(dim=0) / SAMPLES**0.5
    require(
        bool(((drawn.mean(dim=0) - mean).abs() <= ERRORS * error + 1e-9).all()),
        "mean_input is not the mean of the inputs that sample draws",
    )


def _check_portable(task: Any) -> None:
    how = "make it a frozen dataclass of a module (or of a file for hoplens.extensions.load_file)"
    try:
        copy = pickle.loads(pickle.dumps(task))
        same = copy == task and hash(copy) == hash(task)
    except Exception as error:  # whatever a class does on the way
        raise ContractError(f"{name_of(task)} cannot be pickled and hashed ({error}); {how}") from error
    require(same, f"{name_of(task)} is not equal to its own copy; {how}")
    ours, theirs = (t.sample(3, generator=generator(5), dtype=F64) for t in (task, copy))
    require(torch.equal(ours[0], theirs[0]), f"a copy of {name_of(task)} draws other samples")


__all__ = ["check_task"]
