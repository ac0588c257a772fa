"""Does the size of the numbers change the time? Hop maps and penalty at horizon 1000, from fading to growing.

Aim: denormals and rescaling never cost more than 1.2 times the time at spectral radius 1. The last line is
a plain recursion without precautions.
"""

from __future__ import annotations

import torch
from contest import contest, show, start

import hoplens as hl

HORIZON, THIN = 1000, 8
RADII = (1.0, 0.95, 0.9, 0.5, 0.1, 3.0)
PENALTY = hl.PathwayPenalty(HORIZON, 0.9)


def plain(net: hl.Pathways) -> torch.Tensor:
    """The recursion as one would write it."""
    rows, maps = net.w_out, []
    for _ in range(HORIZON):
        maps.append(rows @ net.w_in)
        rows = rows @ net.w_rec
    return torch.stack(maps)


def main() -> None:
    """Print one table a size."""
    options = start(__doc__.splitlines()[0])
    for hidden in (64, 512):
        source = torch.Generator().manual_seed(0)
        w_rec = torch.randn(hidden, hidden, generator=source, dtype=torch.float64)
        w_rec /= torch.linalg.eigvals(w_rec).abs().max()
        ends = torch.randn(hidden, THIN, generator=source), torch.randn(THIN, hidden, generator=source)
        nets = {radius: hl.Pathways(ends[0], (radius * w_rec).float(), ends[1]) for radius in RADII}
        show(
            f"hop maps, H = {hidden}, horizon {HORIZON}",
            contest(
                {f"radius {r}": lambda n=n: hl.hop_maps(n, HORIZON) for r, n in nets.items()},
                seconds=options.seconds,
            ),
            "radius 1.0",
        )
        leaves = {
            r: hl.Pathways(
                n.w_in.clone().requires_grad_(),
                n.w_rec.clone().requires_grad_(),
                n.w_out.clone().requires_grad_(),
            )
            for r, n in nets.items()
            if r <= 1.0
        }
        entries = {f"radius {r}": lambda n=n: PENALTY(n).backward() for r, n in leaves.items()}
        show(f"penalty and gradient, H = {hidden}", contest(entries, seconds=options.seconds), "radius 1.0")
        entries = {f"radius {r}": lambda n=n: plain(n) for r, n in nets.items()}
        show(f"plain recursion, H = {hidden}", contest(entries, seconds=options.seconds), "radius 1.0")


if __name__ == "__main__":
    main()
