"""One network seen twice: what its bare weights could route, and what flows along data."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt

import hoplens as hl
from hoplens.analysis import agreement
from hoplens.plots import plot_hops, save_figure

SET = "vowels"  # twelve coefficients of a spoken vowel: which of nine speakers?


def main(folder: str = ".", *, steps: int = 600, hidden: int = 48) -> str:
    data = hl.data.load(SET)
    result = hl.train(data, "none", hidden=hidden, steps=steps)
    model, test = result.model(), data.test
    bare = hl.hop_maps(hl.read(model).detach(), horizon=data.length)
    flow = hl.hop_maps(model, inputs=test.inputs, lengths=test.lengths)
    print(f"accuracy {float(result.metrics['accuracy'].iloc[0]):.2f}")
    print("bare weights:", agreement(hl.read(model).detach(), flow))
    for at in ("flow", "steps"):
        print(f'at="{at}":', hl.read(model, inputs=test.inputs, lengths=test.lengths, at=at).agreement)
    figure, axes = plt.subplots(1, 2, figsize=(11.0, 5.5), layout="constrained")
    shown = {"bare weights: what could be routed": bare, "along the test data: what flows": flow}
    for ax, (title, maps) in zip(axes, shown.items(), strict=True):
        plot_hops(maps.sel(lag=list(range(min(30, data.length)))), ax=ax)
        ax.set_title(title, loc="left")
    return str(save_figure(figure, f"{folder}/weights-and-flow.png"))


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
