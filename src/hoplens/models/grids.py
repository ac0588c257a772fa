"""Grids of few values for weights and activations: scales, rounding, and bytes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hoplens.errors import check_choice

LARGEST = {"int8": 127, "int4": 7, "ternary": 1}  # levels run from -largest to largest, so that 0 stays 0
METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 0.99  # of a row's magnitudes
ACTIVATION_PERCENTILE = 0.9995  # of an activation's magnitudes
MOST_VALUES = 1 << 17  # of an activation that are looked at, evenly spread
SHRINKS = torch.linspace(0.02, 1.0, 50, dtype=torch.float64)  # clipping points tried, relative to the largest
REFITS = 3  # of the scale to the levels it gave
TRITS = 5  # values of 3 in a byte: 3^5 = 243


def row_scales(weight: Tensor, form: str, method: str) -> Tensor:
    """Return one scale for each row of a weight.

    ``minmax`` reaches the row's largest magnitude; ``percentile`` its 99th percentile, larger ones are
    clipped; ``mse`` makes the squared error of the row least, over fifty clipping points each refitted to
    the levels it gives.

    Parameters
    ----------
    weight : Tensor, shape (..., R, C)
    form : {"int8", "int4", "ternary"}
    method : {"minmax", "percentile", "mse"}

    Returns
    -------
    Tensor, shape (..., R, 1)
        1 where a row is all zero.
    """
    largest = LARGEST[check_choice("form", form, LARGEST)]
    check_choice("method", method, METHODS)
    size = weight.detach().abs()
    top = size.amax(-1, keepdim=True)
    if method == "percentile":
        clipped = size.quantile(PERCENTILE, dim=-1, keepdim=True)
        top = torch.where(clipped > 0, clipped, top)  # a row with few weights: their largest
    scales = torch.where(top > 0, top / largest, torch.ones_like(top))
    return scales if method != "mse" else _least_error(weight.detach(), scales, largest)


def _least_error(weight: Tensor, widest: Tensor, largest: int) -> Tensor:
    best, least = widest, torch.full_like(widest, torch.inf)
    for shrink in SHRINKS.tolist():
        scales = widest * shrink
        for _ in range(REFITS):
            levels = to_levels(weight, scales, largest)
            own = levels.square().sum(-1, keepdim=True)
            fitted = (weight * levels).sum(-1, keepdim=True) / own.clamp_min(1)
            scales = torch.where(fitted > 0, fitted, scales)
        error = (to_levels(weight, scales, largest) * scales - weight).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return best


def to_levels(values: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Return whole numbers from -largest to largest, as floats."""
    return (values / scales).round().clamp(-largest, largest)


def fake_quantise(values: Tensor, scales: Tensor, largest: int) -> Tensor:
    """Return values on the grid, differentiable by values and scales: rounding counts as the identity.

    The straight-through estimator with learnt steps (Esser et al. 2020).
    """
    ratio = (values / scales).clamp(-largest, largest)
    return (ratio + (ratio.round() - ratio).detach()) * scales


class Grid(NamedTuple):
    """256 evenly spaced values for an activation, level ``zero`` meaning 0.

    ``zero`` is 128 (-128 .. 127 scales) or 0 where no value is negative.
    """

    scale: Tensor
    zero: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Return values on the grid; rounding counts as the identity for gradients, clipping does not."""
        ratio = values / self.scale
        ratio = torch.minimum(torch.maximum(ratio, -self.zero), 255 - self.zero)
        return (ratio + (ratio.round() - ratio).detach()) * self.scale


def activation_grid(values: Tensor, method: str) -> Grid:
    """Return the grid of an activation from values seen in calibration.

    Parameters
    ----------
    values : Tensor, shape (..., n)
        One grid for each of the leading axes.
    method : {"minmax", "percentile", "mse"}

    Returns
    -------
    Grid
        Scale and zero of shape (...,).
    """
    check_choice("method", method, METHODS)
    values = values[..., :: -(-values.shape[-1] // MOST_VALUES)]
    size = values.abs()
    zero = torch.where(values.amin(-1) < 0, 128.0, 0.0).to(values)
    top = size.amax(-1)
    if method == "percentile":
        clipped = size.quantile(ACTIVATION_PERCENTILE, dim=-1)
        top = torch.where(clipped > 0, clipped, top)
    scale = torch.where(top > 0, top / (255 - zero), torch.ones_like(top))
    if method != "mse":
        return Grid(scale, zero)
    best, least = scale, torch.full_like(scale, torch.inf)
    for shrink in SHRINKS[SHRINKS >= 0.2].tolist():
        trial = Grid(scale[..., None] * shrink, zero[..., None])
        error = (trial(values) - values).square().sum(-1)
        best, least = torch.where(error < least, scale * shrink, best), torch.minimum(error, least)
    return Grid(best, zero)


def pack(levels: Tensor, form: str) -> Tensor:
    """Return levels as bytes: one an int8, two int4 a byte, five ternary values a byte.

    Parameters
    ----------
    levels : Tensor of whole numbers, any shape
    form : {"int8", "int4", "ternary"}

    Returns
    -------
    Tensor of uint8, shape (n,)
    """
    flat = levels.flatten().to(torch.int64)
    if form == "int8":
        return (flat % 256).to(torch.uint8)
    base, each = (16, 2) if form == "int4" else (3, TRITS)
    flat = flat + LARGEST[form]
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % each)).view(-1, each)
    return (flat * base ** torch.arange(each)).sum(-1).to(torch.uint8)


def unpack(data: Tensor, form: str, count: int) -> Tensor:
    """Return ``count`` levels that `pack` packed, as int8, shape (count,)."""
    whole = data.to(torch.int64)
    if form == "int8":
        return torch.where(whole > 127, whole - 256, whole).to(torch.int8)[:count]
    base, each = (16, 2) if form == "int4" else (3, TRITS)
    digits = whole[:, None] // base ** torch.arange(each) % base
    return (digits.flatten()[:count] - LARGEST[form]).to(torch.int8)


__all__ = [
    "LARGEST",
    "METHODS",
    "Grid",
    "activation_grid",
    "fake_quantise",
    "pack",
    "row_scales",
    "to_levels",
    "unpack",
]
