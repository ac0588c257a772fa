"""How influence passes through groups of hidden units: `plot_routing_graph`."""

import hoplens as hl
from hoplens.plots import plot_routing_graph, save_figure


def main(folder: str = ".") -> str:
    task = hl.tasks.make("averaging", signal="sparse", lag=2, length=6)
    net = hl.train(task, hl.recipes.recommended(), hidden=24, steps=400).pathways[0]
    ax = plot_routing_graph(net, horizon=6)
    return str(save_figure(ax.figure, f"{folder}/routing_graph.svg"))


if __name__ == "__main__":
    print(main())
