"""What a network does, in plain sentences with numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps
from hoplens.analysis.measures import active_hops
from hoplens.analysis.summary import Analysis
from hoplens.reports.numbers import count, number, percent
from hoplens.reports.verdict import Tile
from hoplens.reports.views import grows

MOST = 0.9  # share of the influence that "most" of it means
NEAR_ONE = 0.02


def network_paragraph(analysis: Analysis) -> str:
    """Return one paragraph that says what the network can route where and when, and how far data bear it out.

    What the weights alone say is called so before it is said.
    """
    mass = analysis.maps.values.abs().sum((1, 2))
    measured = _units(analysis) if analysis.ablations is not None else []  # in runs, not read off the weights
    sentences = [_size(analysis), *measured, _trust(analysis)]
    if float(mass.sum()) == 0:
        sentences.append(
            f"No input reaches an output within {int(analysis.maps.hops[-1])} hops: "
            "there is nothing to route."
        )
    else:
        sentences += [
            *_when(analysis.maps, mass, analysis.spectral_radius),
            *_where(analysis.maps),
            *_modules(analysis.maps),
            *([] if measured else _units(analysis)),
        ]
    return " ".join(sentences)


def timing(maps: HopMaps) -> str:
    """Say what the hops of a network have to do with time."""
    if not maps.timed:
        return (
            "A pathway of k hops sums all walks of k edges from an input to an output. The network also runs "
            "backward, so walks of one length carry inputs of different times."
        )
    less = maps.levels + 1
    return (
        f"A pathway of k hops carries what an input was k\u00a0−\u00a0{less} steps before the read-out (its "
        "lag) to an output."
    )


def strongest(maps: HopMaps, most: int) -> list[tuple[int, int, int]]:
    """Return the cells (hop index, output, input) of largest magnitude, zeros left out.

    Cells rank as `_comparable` compares them.
    """
    flat = _comparable(maps).flatten()
    inputs, pairs = maps.values.shape[2], maps.values[0].numel()
    # stable, so that of equals the first comes first, as in the page's own words
    kept = [n for n in flat.argsort(descending=True, stable=True)[:most].tolist() if float(flat[n]) > 0]
    return [(n // pairs, n % pairs // inputs, n % inputs) for n in kept]


def _comparable(maps: HopMaps) -> Tensor:
    """Return magnitudes (K, O, I) that hops can be compared by.

    Where raw weights grow with every hop these are shares of their hop: else the last hop would hide all
    others.
    """
    size = maps.values.abs()
    mass = size.sum((1, 2), keepdim=True)
    return size / torch.where(mass > 0, mass, torch.ones_like(mass)) if grows(mass.flatten()) else size


def steps(lag: int) -> str:
    """Say when an input was seen."""
    return "at the read-out itself" if lag == 0 else f"{count(lag, 'time step')} before the read-out"


def _size(analysis: Analysis) -> str:
    net, hops = analysis.net, analysis.maps.hops
    picks = bool(((net.w_out != 0).sum(1) == 1).all()) and bool((net.w_out.sum(1) == 1).all())
    note = ", hidden units themselves, without a read-out" if picks else ""
    return (
        f"This network carries {count(net.n_inputs, 'input')} over {count(net.n_hidden, 'hidden unit')} to "
        f"{count(net.n_outputs, 'output')}{note}. Influence was followed along all walks of "
        f"{int(hops[0])} to {int(hops[-1])} hops."
    )


def _when(maps: HopMaps, mass: Tensor, radius: float) -> list[str]:
    if grows(mass):
        first = int((mass > 0).nonzero()[0])
        return [
            _fading(radius),
            f"The shortest way takes {int(maps.hops[first])} hops. Pathways are compared within their own "
            "hop length, as the last hop would else hide all others.",
        ]
    share = mass / mass.sum()
    top = int(share.argmax())
    hops = count(int(maps.hops[top]), "hop")
    sentence = f"{percent(float(share[top]))} of the influence takes {hops}, the most of all"
    if maps.timed:
        sentence += f": inputs seen {steps(int(maps.lags[top]))}"
    within = int((share.cumsum(0) >= MOST - 1e-12).nonzero()[0])
    more = float(share[top]) < MOST and within < len(share) - 1
    sentence += f"; {percent(MOST)} takes no more than {int(maps.hops[within])} hops." if more else "."
    return [sentence, _fading(radius)]


def _fading(radius: float) -> str:
    start = f"The spectral radius is {number(radius)}: "
    if radius == 0:
        return start + "the recurrent graph has no cycle, so every memory ends."
    if radius > 1 + NEAR_ONE:
        return start + f"in the long run every further hop multiplies the weights by {number(radius)}."
    if radius < 1 - NEAR_ONE:
        half = math.log(0.5) / math.log(radius)
        return start + f"in the long run influence halves every {number(half, 2)} steps."
    return start + "in the long run influence neither fades nor grows."


def _where(maps: HopMaps) -> list[str]:
    total = _comparable(maps).sum(0).flatten()
    ordered = total.sort(descending=True).values.cumsum(0)
    few = int((ordered >= MOST * ordered[-1] * (1 - 1e-12)).nonzero()[0]) + 1
    (k, o, i), *_ = strongest(maps, 1)
    sentences = []
    if len(total) > 1:
        sentences.append(
            f"{percent(MOST)} of the influence is shared by {few:,} of the {len(total):,} input-output pairs."
        )
    sentences.append(
        f"The strongest pathway runs from {maps.input_names[i]} to {maps.output_names[o]} in "
        f"{count(int(maps.hops[k]), 'hop')}, with weight {signed(float(maps.values[k, o, i]))}."
    )
    return sentences


def _modules(maps: HopMaps) -> list[str]:
    to, of = maps.output_modules, maps.input_modules
    if to is None or of is None or len(set(of)) < 2 or set(to) != set(of):
        return []
    total = maps.values.abs().sum(0)
    same = torch.tensor([[a == b for b in of] for a in to], device=total.device)
    share = float((total * same).sum() / total.sum())
    alone = float(same.double().mean())
    return [
        f"{percent(share)} of the influence stays inside a module, where {percent(alone)} of the pairs lie."
    ]


def _units(analysis: Analysis) -> list[str]:
    size = analysis.importance()
    if size is None or not float(size.max()) > 0:
        return []
    most = int(size.argmax())
    what, scale = analysis.importance_of
    return [
        f"Of all units removed one by one, {analysis.net.hidden_names[most]} is the one without which "
        f"{what} change most, by {number(float(size[most]))} times their {scale}."
    ]


def _trust(analysis: Analysis) -> str:
    fit = analysis.fidelity
    start = "What follows is read off the weights alone, as if every unit were linear: "
    if fit is None:
        return (
            f"{start}what the network can route. How much of the flow on data that explains is not known, "
            "as no inputs were given."
        )
    given = f"on the {count(len(fit.explained), 'sequence')} given "
    verdict = fit.verdict()
    if verdict == "nothing flows":
        return f"{start}{given}nothing flows, as no input changes an output there."
    shares = (
        f"{_explained(fit.pooled_explained)} of the flow pooled, and {_explained(fit.median_explained)} in "
        "the median sequence"
    )
    end = {
        "both": "so this is close to what flows there.",
        "partly": "so this is a guide, and below stands at which hops it fails.",
        "pattern": (
            f"but {percent(fit.pooled_pattern)} with the predicted size times {number(fit.pooled_gain)}: "
            "take the pattern for what flows there, not the size."
        ),
        "neither": "so this must not be taken for what flows there.",
    }[verdict]
    return f"{start}{given}that explains {shares}, {end}"


def _explained(share: float) -> str:
    return percent(share) if share > 0 else "none"


def signed(value: float) -> str:
    """Write a number with its sign."""
    return ("+" if value > 0 else "") + number(value)


def network_tiles(analysis: Analysis) -> list[Tile]:
    """Return the few numbers that sum up a network."""
    maps = analysis.maps
    mass = maps.values.abs().sum((1, 2))
    tiles = [
        Tile(
            number(analysis.spectral_radius), "spectral radius: growth of a pathway per step, in the long run"
        )
    ]
    if float(mass.sum()) > 0:
        top = int(mass.argmax())
        if grows(mass):
            (k, _, _), *_ = strongest(maps, 1)
            tiles.append(Tile(f"hop {int(maps.hops[k])}", "is where a single pathway stands out most"))
        else:
            tiles.append(Tile(f"hop {int(maps.hops[top])}", "carries the most influence"))
            mean = float(active_hops(maps).double().mean())
            tiles.append(Tile(number(mean, 2), f"active hops a pair, of {len(maps.hops)} followed"))
    if analysis.fidelity is not None and analysis.fidelity.verdict() != "nothing flows":
        tiles.append(
            Tile(
                _explained(analysis.fidelity.pooled_explained),
                "of the flow on data explained by the weights, sequences pooled",
            )
        )
    return tiles
