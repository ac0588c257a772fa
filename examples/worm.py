"""From sensory to motor neurons in C. elegans: hop maps, dominant hops, null models, a picture.

Run: python examples/worm.py [picture.png]. Data: Varshney et al. 2011, see hoplens/data/README.md.
"""

import sys

import torch

import hoplens as hl


def relative_mass(maps: hl.HopMaps) -> torch.Tensor:
    """Share of each hop in the summed influence: the null models change total gain, shares do not care."""
    size = maps.values.abs().sum((1, 2))
    return size / size.sum().clamp_min(1e-300)


def main(picture: str | None = None, draws: int = 200) -> None:
    worm = hl.celegans()
    sensory, motor = ([n for n in worm if worm.nodes[n]["kind"] == kind] for kind in ("sensory", "motor"))
    net = hl.read(worm, inputs=sensory, outputs=motor, attach=True)
    # a spectral radius of 1/2 makes each further synapse count about half, instead of ever more
    radius = float(hl.spectral_radius(net))
    net = hl.Pathways(
        net.w_in, net.w_rec.to_dense() / (2 * radius), net.w_out,
        input_names=sensory, output_names=motor, hidden_names=net.hidden_names,
        provenance="C. elegans chemical synapses, scaled to spectral radius 0.5",
    )  # fmt: skip
    maps = hl.hop_maps(net, 8)
    print(net)
    hops = hl.dominant_hop(maps)
    reached = hops[hops > 0]
    # the two terminals' edges are hops too: a direct synapse has hop 3
    for hop in range(3, 9):
        print(
            f"dominant hop {hop} ({hop - 2} synapses): {float((reached == hop).double().mean()):.1%} of pairs"
        )
    result = hl.compare_to_null(net, relative_mass, "rewire", draws, 0, horizon=8)
    print(result.to_dataframe().round(4).to_string(index=False))
    print("strongest walks from ASHL (nociception) to VA6 over three synapses:")
    print(hl.top_paths(net, "ASHL", "VA6", 5, 5)[["path", "share"]].to_string(index=False))
    carried = hl.flow(net, 8)[2:].mean(0)
    best = carried.argsort(descending=True)[:8].tolist()
    print("units that carry most:", ", ".join(net.hidden_names[j] for j in best))
    if picture is not None:
        result.plot().figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:2])
