"""Hop maps as the page shows them: ordered by module, and few enough cells to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoplens.analysis.hops import HopMaps
from hoplens.plots.columns import by_first_use, finite

MOST_NAMES = 48  # rows or columns that a reader can still tell apart on a laptop
MOST_NUMBERS = 200_000  # cells of all hops together: about 2 MB of the page
MOST_PAIRS = 160
SKEWED = 0.3  # with most hops below this share of the clearest one a linear scale shows little of them
GROWTH = 1e3  # hops that differ by more than this factor cannot share a scale of raw weights
Array = NDArray[np.float64]


def map_view(maps: HopMaps, name: str = "", note: str = "") -> dict[str, Any]:
    """Return what the page's scripts need to draw the hop maps (K, O, I) of one network.

    Outputs and inputs are ordered by module. Where there are too many to read, modules are shown in their
    place (the strongest weight of each block), or without modules the strongest ones; ``note`` says so.
    """
    values = finite(maps.values.detach().double().cpu().numpy())
    mass = np.abs(values).sum(axis=(1, 2))
    limit = MOST_NAMES
    while limit > 4 and len(values) * min(limit, values.shape[1]) * min(limit, values.shape[2]) > (
        MOST_NUMBERS
    ):
        limit -= 1
    values, outputs, to, note_to = _shorten(
        values, 1, maps.output_names, maps.output_modules, limit, "outputs"
    )
    values, inputs, of, note_of = _shorten(values, 2, maps.input_names, maps.input_modules, limit, "inputs")
    notes = [*note_to, *note_of, *([note] if note else []), *_on_scale(maps)]
    pairs, note_on_pairs = _overview(values)
    return {
        "name": name,
        "hops": maps.hops,
        "lags": maps.lags if maps.timed else None,
        "outputs": outputs,
        "inputs": inputs,
        "outputModules": to,
        "inputModules": of,
        "values": values.reshape(len(values), -1),
        "mass": mass,
        "pairs": pairs,
        "pairsNote": note_on_pairs,
        "mode": "share" if grows(mass) else "signed",
        "start": _start(values, mass),
        "gamma": _gamma(values, mass),
        "note": "; ".join(notes),
    }


def _shorten(
    values: Array,
    axis: int,
    names: Sequence[str],
    modules: Sequence[str] | None,
    limit: int,
    what: str,
) -> tuple[Array, list[str], list[str] | None, list[str]]:
    """Order one axis by module and cut it to ``limit`` entries."""
    order = by_first_use(modules) if modules is not None else list(range(len(names)))
    notes = []
    if len(names) > limit and modules is not None and len(set(modules)) <= limit:
        groups = list(dict.fromkeys(modules))
        blocks = [
            _strongest(np.take(values, [n for n in order if modules[n] == g], axis=axis), axis)
            for g in groups
        ]
        notes.append(f"{len(names)} {what} are shown as {len(groups)} modules, by the strongest of each")
        return np.stack(blocks, axis=axis), groups, None, notes
    if len(names) > limit:
        size = _size(values, axis)
        kept = set(np.argsort(-size, kind="stable")[:limit].tolist())
        order = [n for n in order if n in kept]
        share = size[order].sum() / size.sum() if size.sum() else 0.0
        notes.append(
            f"the {limit} strongest of {len(names)} {what} are shown ({share:.0%} of their influence, each "
            "hop counted alike)"
        )
    shown = np.take(values, order, axis=axis)
    groups_shown = None if modules is None else [modules[n] for n in order]
    return shown, [names[n] for n in order], groups_shown, notes


def _size(values: Array, axis: int) -> Array:
    """Return the influence of each entry of an axis, every hop counted alike."""
    total: Array = _shares(values).sum(axis=tuple(a for a in range(3) if a != axis))
    return total


def _shares(values: Array) -> Array:
    """Return each cell's part of the magnitude of its hop, 0 in hops without any."""
    mass = np.abs(values).sum(axis=(1, 2), keepdims=True)
    shares: Array = np.abs(values) / np.where(mass > 0, mass, 1.0)
    return shares


def _strongest(block: Array, axis: int) -> Array:
    # the strongest and not the mean: pathways of opposite sign would cancel and the map look empty
    place = np.expand_dims(np.abs(block).argmax(axis=axis), axis)
    strongest: Array = np.take_along_axis(block, place, axis=axis).squeeze(axis)
    return strongest


def _overview(values: Array) -> tuple[list[int], str]:
    """Return the pairs (as positions o * I + i) that the overview shows, and what it leaves out."""
    count = values.shape[1] * values.shape[2]
    flat = np.arange(count)
    if count <= MOST_PAIRS:
        return flat.tolist(), ""
    size = _shares(values).sum(axis=0).ravel()
    kept = np.sort(np.argsort(-size, kind="stable")[:MOST_PAIRS])
    return kept.tolist(), f"the {MOST_PAIRS} strongest of {count:,} pairs"


def grows(mass: Any) -> bool:
    """Say whether the influence of hops, (K,), differs so much that raw weights show the last ones only."""
    size = np.asarray(mass, dtype=np.float64)
    some = size[size > 0]
    return bool(len(some) and size[-1] == size.max() and some.max() > GROWTH * float(np.median(some)))


def _start(values: Array, mass: Array) -> int:
    """Return the hop to begin with: that of most influence, or of the clearest map where raw weights grow."""
    if not grows(mass):
        return int(mass.argmax())
    return int((np.abs(values).max(axis=(1, 2)) / np.where(mass > 0, mass, 1.0)).argmax())


def _gamma(values: Array, mass: Array) -> float:
    """Return the power that colours follow: 1/2 where shares of most hops are faint beside the clearest."""
    if not grows(mass):
        return 1.0
    clearest = np.abs(values).max(axis=(1, 2))[mass > 0] / mass[mass > 0]
    return 0.5 if float(np.median(clearest)) < SKEWED * float(clearest.max()) else 1.0


def _on_scale(maps: HopMaps) -> list[str]:
    if maps.shift is None:
        return []
    power = int(maps.shift) * math.log10(2)
    return [f"weights are in units of 10^{power:.1f}, as they leave the range of the numbers"]


__all__ = ["grows", "map_view"]
