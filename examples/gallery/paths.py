"""The strongest single walks from one neuron to another in the worm: `plot_paths`."""

import hoplens as hl
from hoplens.plots import plot_paths, save_figure


def main(folder: str = ".") -> str:
    worm = hl.data.celegans()
    net = hl.read(worm, inputs=["PLML", "PLMR", "AVM"], outputs=["DA6", "VA8", "VB9"], attach=True)
    ax = plot_paths(net, "AVM", "VA8", 5, n=6)
    return str(save_figure(ax.figure, f"{folder}/paths.svg"))


if __name__ == "__main__":
    print(main())
