"""Exact maps along data, averaged over samples while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from hoplens.analysis.hops import HopMaps
from hoplens.analysis.trajectories import trajectory_maps
from hoplens.errors import NonFiniteError, ParameterError, ShapeError
from hoplens.graph.parts import numbered
from hoplens.models.readers.models import recurrent_parts
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_lengths, numbers
from hoplens.progress import Progress, reporting

CHUNK_BYTES = 1 << 26  # of the maps of some samples at once


def mean_maps(
    model: Any,
    inputs: Any,
    *,
    lengths: Tensor | None = None,
    readout: Any = None,
    horizon: int | None = None,
    groups: Any = None,
    progress: Progress = False,
) -> HopMaps:
    """Return the mean over samples of the exact Jacobian maps, by lag; see `hoplens.hop_maps`.

    ``lengths``, ``readout`` and ``inputs`` as of `trajectory_maps`; ``groups`` (B,) has a label a sample. The
    mean of a lag is over the samples that are longer than it. Computed some samples at a time, in float64.
    """
    parts = recurrent_parts(model, readout)
    stack = None if parts is None else parts.stack()
    axis, levels = 0, 1  # of the samples; layers
    if isinstance(stack, Stack):
        model, readout, levels = parts, None, len(stack.levels)
        axis = 0 if stack.batch_first else 1
    if isinstance(inputs, PackedSequence):
        if lengths is not None:
            raise ShapeError("a PackedSequence has its own lengths; leave lengths= out")
        inputs, lengths = pad_packed_sequence(inputs, batch_first=axis == 0)
    inputs = numbers(inputs, "inputs")
    if inputs.dim() != 3:
        raise ShapeError(f"inputs must have shape (B, L, I), got {tuple(inputs.shape)}")
    lengths = check_lengths(lengths, inputs if axis == 0 else inputs.transpose(0, 1))
    count = inputs.shape[axis]
    labels, places = _groups(groups, count)
    samples = [inputs.narrow(axis, n, 1) for n in range(min(1, count))]
    size = trajectory_maps(model, samples[0], readout=readout).values.numel() * 8 if count > 1 else 1
    width = max(1, CHUNK_BYTES // size)
    sums: Sums | None = None
    with reporting(progress, "samples") as call:
        for start in range(0, count, width):
            rows = slice(start, min(start + width, count))
            part = inputs.narrow(axis, start, rows.stop - start)
            own = None if lengths is None else lengths[rows]
            found = trajectory_maps(model, part, lengths=own, readout=readout)
            each = found.by_lag().double()[:, :horizon]
            valid = torch.arange(each.shape[1], device=each.device) < found.lengths[:, None]
            sums = sums or Sums(len(labels), each)
            sums.add(each, valid, places[rows].to(each.device))
            if call is not None:
                call(rows.stop, count)
    if sums is None:
        raise ShapeError("inputs hold no sample")
    if not bool(torch.isfinite(sums.mean).all()):
        raise NonFiniteError(
            f"the maps of {found.label} along these inputs are not finite; check its weights, or take "
            "shorter sequences or float64 where the network is unstable"
        )
    maps = sums.maps(levels, found.values.dtype, labels if groups is not None else None)
    if parts is None:
        return maps
    names = parts.info.input_names, parts.info.output_names
    sources, outputs = (
        given if given is not None and len(given) == len(default) else default
        for given, default in zip(names, (maps.input_names, maps.output_names), strict=True)
    )
    return replace(maps, input_names=sources, output_names=outputs)


def _groups(groups: Any, count: int) -> tuple[list[Any], Tensor]:
    if groups is None:
        return [None], torch.zeros(count, dtype=torch.int64)
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(labels) != count:
        raise ShapeError(f"groups= needs one label a sample, {count}, got {len(labels)}")
    try:
        order = sorted(set(labels))
    except TypeError:
        raise ParameterError("groups= needs labels of one kind, numbers or texts, got a mixture") from None
    place = {label: n for n, label in enumerate(order)}
    return order, torch.tensor([place[label] for label in labels])


class Sums:
    """Mean, mean size and spread by group, added up some samples at a time (Chan's parallel form)."""

    def __init__(self, groups: int, like: Tensor) -> None:
        shape = (groups, *like.shape[1:])  # (G, L, O, I)
        self.mean, self.absolute, self.squares = (like.new_zeros(shape) for _ in range(3))
        self.count = like.new_zeros(shape[:2])

    def add(self, maps: Tensor, valid: Tensor, groups: Tensor) -> None:
        """Add samples (b, L, O, I), valid (b, L), of groups (b,)."""
        for g in groups.unique().tolist():
            rows = groups == g
            here = valid[rows].to(maps)  # (b, L)
            new = here.sum(0)
            total = self.count[g] + new
            safe, share = new.clamp_min(1)[:, None, None], (new / total.clamp_min(1))[:, None, None]
            weights = here[..., None, None]
            mean = (maps[rows] * weights).sum(0) / safe
            absolute = (maps[rows].abs() * weights).sum(0) / safe
            squares = ((maps[rows] - mean).square() * weights).sum(0)
            gap = mean - self.mean[g]
            self.squares[g] += squares + gap.square() * (share * self.count[g][:, None, None])
            self.mean[g] += gap * share
            self.absolute[g] += (absolute - self.absolute[g]) * share
            self.count[g] = total

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mean, mean size, standard deviation and the standard error of the mean, (G, L, O, I)."""
        count = self.count[..., None, None]
        spread = (self.squares / count.clamp_min(1)).sqrt()
        # of the mean, from the unbiased variance; one sample does not say
        error = (self.squares / (count - 1) / count).sqrt().masked_fill(count < 2, torch.nan)
        return self.mean, self.absolute, spread, error

    def maps(self, levels: int, dtype: torch.dtype, labels: Sequence[Any] | None) -> HopMaps:
        """Return what was added up; a leading axis of groups where they have labels."""
        values, absolute, spread, error = (
            (kind if labels is not None else kind[0]).to(dtype) for kind in self.moments()
        )
        return HopMaps(
            values,
            torch.arange(values.shape[-3], device=values.device) + levels + 1,
            numbered("x", values.shape[-1]),
            numbered("y", values.shape[-2]),
            levels=levels,
            absolute=absolute,
            spread=spread,
            standard_error=error,
            samples=(self.count if labels is not None else self.count[0]).long(),
            groups=None if labels is None else tuple(labels),
        )


__all__ = ["Sums", "mean_maps"]
