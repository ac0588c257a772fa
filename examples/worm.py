"""From sensory to motor neurons in C. elegans: hop maps, dominant hops, null models, lesions, pictures.

Run: python examples/worm.py [folder for pictures]. Data: Varshney et al. 2011, see hoplens/data/README.md.
"""

import sys
from pathlib import Path

import torch

import hoplens as hl
from hoplens.plots import save_figure


def relative_mass(maps: hl.HopMaps) -> torch.Tensor:
    """Share of each hop in the summed influence: the null models change total gain, shares do not care."""
    size = maps.values.abs().sum((1, 2))
    return size / size.sum().clamp_min(1e-300)


def main(folder: str | None = None, draws: int = 200) -> None:
    worm = hl.data.celegans()
    sensory, motor = ([n for n in worm if worm.nodes[n]["kind"] == kind] for kind in ("sensory", "motor"))
    net = hl.read(worm, input_nodes=sensory, output_nodes=motor, attach=True)
    # with the synapse counts as they are each further synapse counts 30 times the one before
    net = hl.graph.rescale(net, 0.5)
    maps = hl.hop_maps(net, 8)
    print(net)
    hops = hl.analysis.dominant_hop(maps)
    reached = hops[hops > 0]
    # the two terminals' edges are hops too: a direct synapse has hop 3
    for hop in range(3, 9):
        print(
            f"dominant hop {hop} ({hop - 2} synapses): {float((reached == hop).double().mean()):.1%} of pairs"
        )
    result = hl.compare_to_null(net, relative_mass, "strength", n=draws, seed=0, horizon=8)
    print(result.to_dataframe().round(4).to_string(index=False))
    print(f"the null models miss the summed weights of neurons by {float(result.strength_error.mean()):.1%}")
    print("strongest walks from ASHL (nociception) to VA6 over three synapses:")
    print(hl.top_paths(net, "ASHL", "VA6", 5, 5)[["path", "share"]].to_string(index=False))
    carried = hl.flow(net, 8)[2:].mean(0)
    best = carried.argsort(descending=True)[:8].tolist()
    print(
        "units that the largest share of all walks passes, signs left aside:",
        ", ".join(net.hidden_names[j] for j in best),
    )
    lost = hl.lesion(net, 8)
    best = lost.argsort(descending=True)[:8].tolist()
    print(
        "units without which the hop maps change most:",
        ", ".join(f"{net.hidden_names[j]} {lost[j]:.0%}" for j in best),
    )
    if folder is not None:
        place = Path(folder)
        save_figure(result.plot().figure, place / "worm-null.png")
        figures = hl.analyze(net, horizon=8).figures()
        for name in ("dominant_hop", "lesions"):
            save_figure(figures[name], place / f"worm-{name.replace('_', '-')}.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
