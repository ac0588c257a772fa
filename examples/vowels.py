"""Who says /ae/? Which cepstrum coefficients, when, tell nine speakers apart.

Run: python examples/vowels.py [folder for the picture]. Needs the files of aeon: pip install 'hoplens[data]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from pictures import draw_heat, draw_lags, lag_shares
from torch import Tensor

import hoplens as hl
from hoplens.plots import save_figure

BACK = 16  # frames before the read-out that are shown
FRAME = 6.4  # milliseconds from one frame to the next


def contributions(model: hl.RecurrentModel, split: hl.data.Split) -> Tensor:
    """Return what each frame and coefficient of an utterance adds to its own speaker's logit.

    Against the mean utterance; contributions add up to the change of the logit (`hoplens.explain`).

    Returns
    -------
    Tensor, shape (N, L, 12)
        Along L the last frame comes first; 0 before an utterance begins.
    """
    found = torch.zeros(len(split), split.length, split.inputs.shape[2], dtype=torch.float64)
    for length in split.lengths.unique().tolist():
        rows = (split.lengths == length).nonzero()[:, 0]
        heard, speakers = split.inputs[rows, :length], split.targets[rows].tolist()
        values = hl.explain(model.core, heard, readout=model.readout, output=speakers, method="secant").values
        found[rows, :length] = values.flip(1)
    return found


def exact_shares(model: hl.RecurrentModel, split: hl.data.Split) -> Tensor:
    """Return the share of each of the last frames in the influence, averaged over utterances long enough."""
    sizes = []
    for length in split.lengths.unique().tolist():
        if length >= BACK:
            heard = split.inputs[split.lengths == length, :length]
            with torch.no_grad():
                maps = hl.trajectory_maps(model.core, heard, readout=model.readout).values
            sizes.append(maps[:, -BACK:].flip(1).abs().sum((2, 3)))
    size = torch.cat(sizes)
    return (size / size.sum(1, keepdim=True)).mean(0)


def draw(lines: dict[str, Tensor], speakers: Tensor, frames: Tensor) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.4), layout="constrained", width_ratios=(1.1, 1.2, 1.2))
    draw_lags(axes[0], lines, f"frames before the end ({FRAME} ms each)", "How far back the answer looks")
    coefficients = "LPC cepstrum coefficient"
    draw_heat(axes[1], speakers, coefficients, "speaker", "What gives each speaker away")
    draw_heat(axes[2], frames, coefficients, "frames before the end", "When it counts, over all speakers")
    for ax in axes[1:]:
        ax.set_xticks(range(12), [str(n) for n in range(1, 13)])
    axes[1].set_yticks(range(9), [str(n) for n in range(1, 10)])
    return figure


def main(folder: str | None = None, steps: int = 600, cell: str = "tanh") -> None:
    data = hl.data.load("vowels")
    result = hl.train(
        data, [hl.recipes.none(), hl.recipes.recommended()], strengths=[1e-3], steps=steps, cell=cell
    )
    print(
        result.metrics[["method", "strength", "validation_accuracy", "accuracy"]]
        .round(3)
        .to_string(index=False)
    )
    lines, maps = {}, hl.hop_maps(result.pathways, BACK).values
    for n, name in enumerate(("no penalty", "pathway penalty")):
        lines[f"{name}, exact"] = exact_shares(result.model(n), data.test)
        lines[f"{name}, weights alone"] = lag_shares(maps[n])
    for name, share in lines.items():
        print(f"{name}: " + ", ".join(f"{x:.2f}" for x in share[:8].tolist()))
    added = contributions(result.model(1), data.test)
    whole = added.sum(1)  # (N, 12)
    speakers = torch.stack([whole[data.test.targets == k].mean(0) for k in range(9)])
    reached = data.test.lengths >= BACK
    frames = added[reached, :BACK].mean(0)
    for k in range(9):
        best = speakers[k].argmax()
        print(
            f"speaker {k + 1}: coefficient {int(best) + 1} adds {float(speakers[k, best]):.2f} to the logit"
        )
    if folder is not None:
        save_figure(draw(lines, speakers, frames), Path(folder) / "vowels.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
