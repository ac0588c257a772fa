"""What a network learns from Bach's chorales: which notes, how far back, carry the next chord.

Run: python examples/chorales.py [folder for the picture]. Needs music21's files: pip install 'hoplens[data]'
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from pictures import draw_heat, draw_lags, lag_shares
from torch import Tensor, nn

import hoplens as hl
from hoplens.plots import save_figure

LAGS = 8  # chords back that are shown
ENDS = range(12, 44, 4)  # predictions are explained after so many chords
SHOWN = 4  # rows of the picture
REACH = 12  # semitones either side in the picture
CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")


def effects(model: hl.RecurrentModel, split: hl.data.Split, moments: int) -> tuple[Tensor, Tensor]:
    """Return what a sounding note does to each pitch of the next chord, on average over chords of the split.

    Returns
    -------
    slopes : Tensor, shape (LAGS, O, I)
        Mean of d logit / d note over the moments at which the note sounds; 0 for notes that never sound.
    counts : Tensor, shape (LAGS, I)
        How often each sounds.
    """
    total, counts = 0.0, 0.0
    for end in ENDS[:moments]:
        inputs = split.inputs[split.lengths >= end, :end]
        with torch.no_grad():
            maps = hl.trajectory_maps(model.core, inputs, readout=model.readout).values
        recent, notes = maps[:, -LAGS:].flip(1), inputs[:, -LAGS:].flip(1)  # lag 0 first
        total = total + torch.einsum("bloi,bli->loi", recent, notes.to(recent))
        counts = counts + notes.to(recent).sum(0)
    return total / counts.clamp_min(1)[:, None], counts


def by_interval(slopes: Tensor, counts: Tensor) -> Tensor:
    """Return (LAGS, 2 REACH + 1): the mean effect on the pitch so many semitones above a sounding note."""
    found = []
    for interval in range(-REACH, REACH + 1):
        line = slopes.diagonal(-interval, dim1=1, dim2=2)  # (LAGS, pairs): output = input + interval
        there = counts[:, max(0, -interval) :][:, : line.shape[1]]
        found.append((line * there).sum(1) / there.sum(1).clamp_min(1))
    return torch.stack(found, dim=1)


def by_class(slopes: Tensor, counts: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return (12, 12): the effect of a sounding pitch class (column) on its neighbours of each class (row).

    Summed over the octaves of the output within REACH semitones, averaged over the notes that sound.
    """
    classes = torch.tensor([CLASSES.index(name.rstrip("0123456789")) for name in names])
    near = (torch.arange(len(names))[:, None] - torch.arange(len(names))).abs() <= REACH
    weighted = slopes[0] * near * counts[0]
    found = torch.zeros(12, 12, dtype=slopes.dtype)
    found.index_put_((classes[:, None], classes[None].expand(len(names), -1)), weighted, accumulate=True)
    heard = torch.zeros(12, dtype=slopes.dtype).index_add_(0, classes, counts[0])
    return found / heard.clamp_min(1)


def draw(lines: dict[str, Tensor], intervals: Tensor, classes: Tensor) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.4), layout="constrained", width_ratios=(1, 1.5, 1.25))
    draw_lags(axes[0], lines, "chords back from the last one heard", "How far back the next chord looks")
    axes[0].set_xticks(range(LAGS))
    across = "semitones from the note to the pitch predicted"
    draw_heat(axes[1], intervals[:SHOWN], across, "chords back", "What a note does to the pitches around it")
    steps = range(-REACH, REACH + 1, 2)
    axes[1].set_xticks(range(0, 2 * REACH + 1, 2), [f"{n:+d}" if n else "same" for n in steps])
    axes[1].set_yticks(range(SHOWN))
    title = "From the last chord to the next, in C or A minor"
    draw_heat(axes[2], classes, "note in the last chord", "note in the next chord", title)
    axes[2].set_xticks(range(12), CLASSES)
    axes[2].set_yticks(range(12), CLASSES)
    return figure


def frequency_loss(data: hl.data.SequenceData) -> float:
    """Return the test loss, nats a chord, of each pitch's frequency in training: what knows no past."""
    often = data.train.targets[data.train.mask].mean(0).clamp(1e-4, 1 - 1e-4)
    heard = data.test.targets[data.test.mask]
    return float(
        nn.functional.binary_cross_entropy(often.expand_as(heard), heard, reduction="none").sum(1).mean()
    )


def main(folder: str | None = None, steps: int = 1200, hidden: int = 64, moments: int = 8) -> None:
    data = hl.data.load("chorales")
    result = hl.train(
        data,
        [hl.recipes.none(), hl.recipes.recommended()],
        strengths=[1e-4],
        hidden=hidden,
        steps=steps,
        horizon=16,
    )
    print(f"nats a chord from the frequency of each pitch: {frequency_loss(data):.2f}")
    print(result.metrics[["method", "strength", "test_loss", "f1"]].round(4).to_string(index=False))
    lines = {}
    maps = hl.hop_maps(result.pathways, LAGS).values
    for n, name in enumerate(("no penalty", "pathway penalty")):
        slopes, counts = effects(result.model(n), data.test, moments)
        lines[f"{name}, exact"] = lag_shares(slopes)
        lines[f"{name}, weights alone"] = lag_shares(maps[n])
    intervals, classes = by_interval(slopes, counts), by_class(slopes, counts, data.input_names)
    for name, share in lines.items():
        print(f"{name}: " + ", ".join(f"{x:.2f}" for x in share.tolist()))
    print("the last chord's note to the next chord, by semitones:")
    print(
        "  " + ", ".join(f"{n:+d} {intervals[0, n + REACH]:.2f}" for n in (-12, -5, -2, -1, 0, 1, 2, 5, 12))
    )
    if folder is not None:
        save_figure(draw(lines, intervals, classes), Path(folder) / "chorales.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
