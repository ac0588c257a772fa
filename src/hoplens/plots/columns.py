"""Lay out the input-output pairs of hop maps as the columns of one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from hoplens.analysis.hops import HopMaps
from hoplens.errors import NonFiniteError, ShapeError

MOST_PAIRS = 400  # more columns than this are narrower than a hair in print
TOP_PAIRS = 40  # as many as can be labelled one by one across a page


@dataclass(frozen=True)
class Group:
    """Neighbouring columns ``start .. stop - 1`` under one label."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Columns:
    """Hop maps as a matrix: a row a hop, a column an input-output pair (or a pair of modules)."""

    values: NDArray[np.float64]  # (K, C)
    outer: tuple[Group, ...]  # columns of one output (module)
    inner: tuple[Group, ...]  # and within these of one input (module)
    by_module: tuple[bool, bool]  # whether outputs and inputs are grouped by module rather than by name
    note: str  # what is shown where that is not every pair


def one_network(maps: HopMaps, network: int | Sequence[int] | None) -> tuple[HopMaps, str]:
    """Return one network of an ensemble, and which one in words; the first where none is named."""
    shape = tuple(maps.batch_shape)
    if not shape:
        if network is not None:
            raise ShapeError(f"these maps hold one network, so network must be left out, got {network!r}")
        return maps, ""
    place, words = pick(shape, network)
    for index in place:
        maps = maps[index]
    return maps, words


def pick(shape: tuple[int, ...], network: int | Sequence[int] | None) -> tuple[tuple[int, ...], str]:
    """Return the index of a network (default the first) in leading axes of this shape, and it in words."""
    place = (0,) * len(shape) if network is None else (network,) if isinstance(network, int) else (*network,)
    if len(place) != len(shape) or not all(
        isinstance(n, int) and -size <= n < size for n, size in zip(place, shape, strict=True)
    ):
        raise ShapeError(
            f"network must index leading axes of shape {shape}, one number an axis, got {network!r}"
        )
    place = tuple(n % size for n, size in zip(place, shape, strict=True))
    if len(shape) == 1:
        return place, f"network {place[0]} of {shape[0]}"
    return place, f"network {place} of {' × '.join(map(str, shape))}" if shape else ""


def arrange(maps: HopMaps) -> Columns:
    """Order the pairs of one network's maps (K, O, I) by module; too many are aggregated or cut."""
    values = finite(maps.values.detach().double().cpu().numpy())
    to, from_ = maps.output_modules or maps.output_names, maps.input_modules or maps.input_names
    by_module = (maps.output_modules is not None, maps.input_modules is not None)
    rows, cols = by_first_use(to), by_first_use(from_)
    pairs = [(o, i) for o in rows for i in cols]
    pairs.sort(key=lambda pair: (_rank(to, pair[0]), _rank(from_, pair[1])))  # stable: keeps o before i
    blocks = len(set(to)) * len(set(from_))
    if len(pairs) > MOST_PAIRS and any(by_module) and blocks <= MOST_PAIRS:
        return _aggregate(values, pairs, to, from_, by_module)
    note = ""
    if len(pairs) > MOST_PAIRS:
        mass = np.abs(values).sum(axis=0)
        strongest = sorted(pairs, key=lambda pair: -mass[pair])[:TOP_PAIRS]
        note = f"the {TOP_PAIRS} strongest of {len(pairs)} pairs"
        pairs = [pair for pair in pairs if pair in set(strongest)]
    keys = [(to[o], from_[i]) for o, i in pairs]
    matrix = np.stack([values[:, o, i] for o, i in pairs], axis=1)
    return Columns(matrix, *_groups(keys), by_module, note)


def _aggregate(
    values: NDArray[np.float64],
    pairs: list[tuple[int, int]],
    to: tuple[str, ...],
    from_: tuple[str, ...],
    by_module: tuple[bool, bool],
) -> Columns:
    # The strongest weight and not the mean: within a module pathways of opposite sign would cancel, and
    # the picture would be empty exactly where a network hides its pathways.
    keys, columns = [], []
    for key, members in groupby(pairs, key=lambda pair: (to[pair[0]], from_[pair[1]])):
        block = np.stack([values[:, o, i] for o, i in members], axis=1)  # (K, members)
        strongest = np.abs(block).argmax(axis=1)
        columns.append(np.take_along_axis(block, strongest[:, None], axis=1)[:, 0])
        keys.append(key)
    note = f"{len(pairs)} pairs as {len(keys)} pairs of modules, the strongest weight of each"
    return Columns(np.stack(columns, axis=1), *_groups(keys), by_module, note)


def _groups(keys: list[tuple[str, str]]) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    outer = tuple(_runs([to for to, _ in keys]))
    inner = tuple(Group(g.start, g.stop, str(g.label[1])) for g in _runs(keys))
    return outer, inner


def _runs(labels: Sequence[str] | Sequence[tuple[str, str]]) -> Iterator[Group]:
    start = 0
    for label, members in groupby(labels):
        stop = start + len(list(members))
        yield Group(start, stop, label)  # type: ignore[arg-type]
        start = stop


def by_first_use(labels: Sequence[str]) -> list[int]:
    """Return positions sorted so that equal labels are neighbours, labels in order of first use."""
    return sorted(range(len(labels)), key=lambda n: _rank(labels, n))


def _rank(labels: Sequence[str], n: int) -> int:
    return list(labels).index(labels[n])


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values, or raise where one is NaN or infinite."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"a map to draw must be finite, but {bad} of its {values.size} weights are NaN or infinite; "
            "check the network that it comes from"
        )
    return values
