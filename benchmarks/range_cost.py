"""Does the size of the numbers change the time? Hop maps and penalty at horizon 1000, from fading to growing.

Aim: denormals and rescaling never cost more than 1.2 times the time at spectral radius 1. The plain recursion
takes no precautions: it shows what they are for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from contest import contest, run, spread, summary, table

import hoplens as hl

HORIZON, THIN = 1000, 8
RADII = (1.0, 0.95, 0.9, 0.5, 0.1, 3.0)
AIM = 1.2
PENALTY = hl.PathwayPenalty(HORIZON, 0.9)


def plain(net: hl.Pathways) -> torch.Tensor:
    """The recursion as one would write it."""
    rows, maps = net.w_out, []
    for _ in range(HORIZON):
        maps.append(rows @ net.w_in)
        rows = rows @ net.w_rec
    return torch.stack(maps)


def networks(hidden: int) -> dict[float, hl.Pathways]:
    """Return one network a spectral radius; only that differs."""
    source = torch.Generator().manual_seed(0)
    w_rec = torch.randn(hidden, hidden, generator=source, dtype=torch.float64)
    w_rec /= torch.linalg.eigvals(w_rec).abs().max()
    ends = torch.randn(hidden, THIN, generator=source), torch.randn(THIN, hidden, generator=source)
    return {radius: hl.Pathways(ends[0], (radius * w_rec).float(), ends[1]) for radius in RADII}


def contests(hidden: int) -> dict[str, dict[float, Callable[[], object]]]:
    """Return what is timed, at every radius."""
    nets = networks(hidden)
    trained = {
        r: hl.Pathways(*(w.clone().requires_grad_() for w in (n.w_in, n.w_rec, n.w_out)))
        for r, n in nets.items()
        if r <= 1.0  # beyond, even the damped maps leave the range of float32
    }
    return {
        "hop maps": {r: lambda n=n: hl.hop_maps(n, HORIZON) for r, n in nets.items()},
        "penalty and gradient": {r: lambda n=n: PENALTY(n).backward() for r, n in trained.items()},
        "plain recursion": {r: lambda n=n: plain(n) for r, n in nets.items()},
    }


def report(seconds: float = 40.0, *, full: bool = False) -> str:
    """Return a Markdown table of ratios to the time at radius 1.

    Parameters
    ----------
    seconds : float
        About how long to measure.
    full : bool
        Five times as long.
    """
    sizes = (64, 512)
    each = seconds * (5 if full else 1) / (3 * len(sizes))
    rows = []
    for hidden in sizes:
        for name, entries in contests(hidden).items():
            times = contest({str(r): run for r, run in entries.items()}, seconds=each)
            own = summary(times, "1.0")
            cells = [spread(own[str(r)]) if str(r) in own else "" for r in RADII[1:]]
            worst = max(ratio for _, ratio, *_ in own.values())
            aim = (
                f"at most {AIM}: {'met' if worst <= AIM else 'missed'}"
                if name != "plain recursion"
                else "none"
            )
            rows.append([str(hidden), name, f"{1e3 * own['1.0'][0]:.1f}", *cells, aim])
    head = ["H", f"horizon {HORIZON}", "ms at radius 1", *(f"radius {r}: ratio" for r in RADII[1:]), "aim"]
    return table(head, rows)


if __name__ == "__main__":
    run(report, __doc__, seconds=40.0)
