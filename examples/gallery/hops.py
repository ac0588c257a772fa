"""Hop maps of a trained network: `maps.plot()`."""

import hoplens as hl
from hoplens.plots import save_figure


def main(folder: str = ".") -> str:
    task = hl.tasks.make("subtraction", signal="sparse", lag=4, length=8)
    net = hl.train(task, hl.recipes.recommended(), hidden=32, steps=400).pathways[0]
    ax = hl.hop_maps(net, 8).plot()
    return str(save_figure(ax.figure, f"{folder}/hops.svg"))


if __name__ == "__main__":
    print(main())
