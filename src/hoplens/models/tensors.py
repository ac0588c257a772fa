"""Checks of tensors that others made: weights of models and files, sequences, lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoplens.errors import NonFiniteError, ShapeError, UnsupportedModelError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_weight(what: str, value: Any, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return a weight, or raise unless it is a dense tensor of floats that holds numbers.

    Parameters
    ----------
    what : str
        What an error calls it.
    value : object
    shape : tuple of int, optional
        The shape that it must have.

    Raises
    ------
    UnsupportedModelError
        For other dtypes, sparse tensors and tensors on the meta device.
    ShapeError
        For another shape.
    """
    if not isinstance(value, Tensor):
        raise UnsupportedModelError(f"{what} must be a tensor, got {type(value).__name__}")
    if value.is_meta:
        raise UnsupportedModelError(
            f"{what} is on the meta device and holds no numbers; load the weights first"
        )
    if value.layout != torch.strided:
        kind = str(value.layout).removeprefix("torch.")
        raise UnsupportedModelError(f"{what} must be dense, got a {kind} tensor; make it one with to_dense()")
    if value.dtype not in FLOATS:
        raise UnsupportedModelError(
            f"{what} must hold float16, bfloat16, float32 or float64 numbers, got {value.dtype}; quantised "
            "weights mean nothing without their scales, so convert them with these"
        )
    if shape is not None and tuple(value.shape) != shape:
        raise ShapeError(f"{what} must have shape {shape}, got {tuple(value.shape)}")
    return value


def masked(what: str, value: Tensor, mask: Tensor) -> Tensor:
    """Return a weight times its mask, or raise where they do not fit.

    Parameters
    ----------
    what : str
    value, mask : Tensor
        Of one shape.
    """
    if value.shape != mask.shape:
        raise ShapeError(
            f"the mask of {what} must have the shape of the weight, {tuple(value.shape)}, got "
            f"{tuple(mask.shape)}; prune it again"
        )
    check_weight(what, value)
    odd = mask.is_complex() or (mask.is_floating_point() and mask.dtype not in FLOATS)
    if odd or mask.layout != torch.strided or mask.is_meta or mask.device != value.device:
        raise UnsupportedModelError(
            f"the mask of {what} must be a dense tensor of plain numbers on {value.device}, got "
            f"{mask.dtype}, {mask.layout} on {mask.device}"
        )
    return value * mask


def as_sequences(inputs: Any, n_inputs: int, what: str = "inputs") -> Tensor:
    """Return sequences as a dense float tensor (B, L, I) of finite numbers, cut from autograd, or raise.

    Parameters
    ----------
    inputs : object
    n_inputs : int
        I.
    what : str, default "inputs"
        What an error calls them.

    Returns
    -------
    Tensor, shape (B, L, I)
        In the dtype given where it is one of floats, else in the default one.

    Raises
    ------
    ShapeError, NonFiniteError
    """
    values = check_sequences(numbers(inputs, what), n_inputs, what)
    check_finite(what, values)
    return values


def numbers(given: Any, what: str) -> Tensor:
    """Return anything that holds numbers as a dense tensor of floats, cut from autograd, or raise."""
    try:
        values = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:120]
        raise ShapeError(f"{what} must be numbers, got {type(given).__name__} ({said})") from None
    if values.is_complex() or values.is_quantized or values.is_meta or values.layout != torch.strided:
        kind = "a tensor on the meta device" if values.is_meta else f"{values.dtype}, {values.layout}"
        raise ShapeError(f"{what} must be a dense tensor of real numbers, got {kind}")
    if values.dtype in FLOATS:
        return values
    return values.to(torch.get_default_dtype())


def check_finite(what: str, values: Tensor) -> None:
    """Raise unless all are finite."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"{what} must be finite numbers, but {bad} of {values.numel()} are NaN or infinite; drop them"
        )


def check_sequences(inputs: Any, n_inputs: int, what: str = "inputs") -> Tensor:
    """Return inputs, or raise unless they are a tensor (B, L, I) of at least one step of one sequence."""
    if not isinstance(inputs, Tensor) or inputs.layout != torch.strided:
        raise ShapeError(
            f"{what} must be a dense tensor (B, L, {n_inputs}), got "
            f"{'a sparse one' if isinstance(inputs, Tensor) else type(inputs).__name__}"
        )
    if inputs.dim() != 3 or inputs.shape[-1] != n_inputs:
        raise ShapeError(f"{what} must have shape (B, L, I) with I = {n_inputs}, got {tuple(inputs.shape)}")
    if 0 in inputs.shape:
        raise ShapeError(
            f"{what} need at least one sequence of at least one step, got (B, L, I) = {tuple(inputs.shape)}"
        )
    return inputs


def check_targets(targets: Any, count: int) -> Tensor:
    """Return the targets of so many sequences: floats (numbers) or int64 (classes), finite; or raise."""
    if isinstance(targets, Tensor) and not targets.is_meta and targets.layout == torch.strided:
        given = targets.detach()
    else:
        try:
            given = torch.as_tensor(targets)
        except (TypeError, ValueError, RuntimeError):
            given = torch.empty(0, dtype=torch.complex64)
    whole = given.dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    if given.is_meta or given.layout != torch.strided or not (whole or given.dtype in FLOATS):
        came = f"{given.dtype}, {given.layout}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ShapeError(f"targets must be a dense tensor of floats (numbers) or int64 (classes), got {came}")
    if given.dim() == 0 or len(given) != count:
        raise ShapeError(f"targets must be those of {count} sequences, got shape {tuple(given.shape)}")
    if whole:
        return given.long()
    check_finite("targets", given)
    return given


def check_lengths(lengths: Any, inputs: Tensor) -> Tensor | None:
    """Return the valid steps of sequences (B, L, I) as int64, or raise unless each lies in 1 .. L."""
    if lengths is None:
        return None
    size, steps = inputs.shape[:2]
    try:
        given = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        given = torch.empty(0, 0)
    if given.layout != torch.strided or given.is_meta:
        given = torch.empty(0, 0)
    whole = given.dtype != torch.bool and not given.is_floating_point() and not given.is_complex()
    if not whole or given.shape != (size,) or bool(((given < 1) | (given > steps)).any()):
        came = f"{given.dtype} {tuple(given.shape)}" if given.shape != (size,) else f"{given.tolist()[:8]}"
        raise ShapeError(
            f"lengths must be {size} whole numbers in 1 .. {steps}, the valid steps of each sequence, got "
            f"{came}"
        )
    return given.to(inputs.device, torch.int64)


__all__ = [
    "FLOATS",
    "as_sequences",
    "check_finite",
    "check_lengths",
    "check_sequences",
    "check_targets",
    "check_weight",
    "masked",
    "numbers",
]
