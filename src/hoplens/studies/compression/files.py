"""Run exported files on a data set, and say how well they do, sequence by sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hoplens.data.sets import IGNORED, Split
from hoplens.errors import FileError
from hoplens.export.exporters import Exporter

BATCH = 256  # sequences run at once, to bound memory


def open_file(path: Path, exporter: Exporter) -> Callable[[Tensor], Tensor]:
    """Return what runs an exported file, opened once."""
    try:
        return exporter.open(path)
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror or type(error).__name__})") from None


def run_file(path: Path, split: Split, exporter: Exporter) -> Tensor:
    """Return the outputs of an exported file, float32 (N, O), or (N, L, O) with zeros where padded.

    Sequences of one length go together, without their padding.
    """
    run = open_file(path, exporter)
    outputs: Tensor | None = None
    for length in split.lengths.unique().tolist():
        chosen = (split.lengths == length).nonzero()[:, 0]
        for part in chosen.split(BATCH):
            with torch.no_grad():
                shown = run(split.inputs[part, :length]).float()
            if outputs is None:
                steps = (split.length,) if shown.dim() == 3 else ()
                outputs = torch.zeros(len(split), *steps, shown.shape[-1])
            if shown.dim() == 3:
                outputs[part, :length] = shown
            else:
                outputs[part] = shown
    assert outputs is not None  # a split has sequences
    return outputs


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return what each sequence takes away from the score; 1 minus their mean is the score.

    Classes: the share of wrong ones (weighted by valid steps). Values: the squared error over the variance
    of the targets.

    ``outputs``, ``targets``: as in `hoplens.compress.tuning.score`. Returns (N,).
    """
    if not targets.is_floating_point():
        valid = (targets != IGNORED).double()
        wrong = (outputs.argmax(-1) != targets).double() * valid
        per = wrong.reshape(len(targets), -1).sum(1)
        return per * len(targets) / valid.sum()
    aimed = targets.double()
    variance = aimed.flatten(0, -2).var(dim=0, correction=0).mean()
    squared = (outputs.double() - aimed).square().reshape(len(targets), -1).mean(1)
    return squared / variance
