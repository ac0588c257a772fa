"""Null models: networks that keep some properties of a network and are random in the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps
from hoplens.errors import ParameterError, ShapeError, check_choice
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.seeds import numpy_generator

NULLS = ("shuffle", "rewire", "strength", "spectrum", "lags")
SWAPS_PER_EDGE = 10  # Maslov and Sneppen's mixing length, generous
DEALS = 50  # rounds of dealing weights anew; most networks come to rest within ten


@takes_models
def null_network(net: Pathways, null: str, seed: int | np.random.Generator) -> Pathways:
    """Draw one random network that keeps some properties of another.

    Input and output weights stay; the recurrent graph is drawn anew. Of leaky units, ``w_rec = diag(kept) +
    diag(gain) W``, only W is: time constants stay with their units (see `Leak`). In a stack every
    layer, and every block of edges from one layer to another, is drawn by itself, so that all stays between
    the same layers.

    Parameters
    ----------
    net : Pathways
        One network; a sparse or low-rank w_rec becomes dense.
    null : {"shuffle", "rewire", "strength", "spectrum"}
        * ``"shuffle"``: the weights of the existing edges are permuted over these edges.
        * ``"rewire"``: two units swap what they send to two others wherever the signs (positive, negative,
          no edge) lie crosswise (Maslov and Sneppen 2002, for signed graphs), so that the numbers of
          positive and of negative edges into and out of every unit stay, also in a graph without missing
          edges. Weights travel with the edge's source, so the summed positive and negative weight out of
          every unit stays too. Self-loops count as edges of their unit.
        * ``"strength"``: rewired, and each unit's weights of one sign are then dealt anew among its edges
          of that sign until the summed weights INTO all units are as close to the original as they get (a
          local optimum, see Notes). Degrees, all weights, and summed weights out of units are exact; for
          what is left into units see `strength_error`, which `compare_to_null` reports.
        * ``"spectrum"``: ``Q W Q^T`` with a random orthogonal Q: same eigenvalues, singular values and
          non-normality, no relation to inputs and outputs. In a stack each layer's own block is turned,
          edges between layers stay.
    seed : int or numpy Generator

    Returns
    -------
    Pathways

    Raises
    ------
    ParameterError
        If no edge can be rewired: the original would be its own null model.

    Notes
    -----
    Dealing: with d_i what unit i still lacks of its incoming weight, a unit's weights w, paired with its
    targets by rank (largest w to largest d), minimise ``sum_i (d_i - w_i)^2``. This is repeated over all
    units until nothing changes: each turn is optimal, the sum never grows. Where a null must keep both the
    set of weights and the degrees, exact sums on both sides need not exist (Rubinov and Sporns 2011;
    Milisav et al. 2025 anneal the same sum).
    """
    check_choice("null", null, NULLS[:-1])
    if net.batch_shape:
        raise ShapeError(f"a null model takes one network, got leading axes {tuple(net.batch_shape)}")
    rng = seed if isinstance(seed, np.random.Generator) else numpy_generator("null model", seed)
    wiring = _wiring(net)
    w = wiring.cpu().numpy()
    drawn = w.copy()
    for to, source in _blocks(net):
        if null == "spectrum" and to != source:
            continue
        drawn[to, source] = _DRAW[null](w[to, source], rng)
    if null in ("rewire", "strength") and w.any() and not any(_has_swap(w[block]) for block in _blocks(net)):
        raise ParameterError(
            f'null="{null}" found no two edges to swap: this is the only network with its degrees; use '
            '"shuffle", "spectrum" or "lags"'
        )
    w_rec = torch.from_numpy(drawn).to(wiring)
    plain = net.detach()
    if plain.leak is not None:
        w_rec = torch.diag_embed(plain.leak.kept.double()) + plain.leak.gain.double()[:, None] * w_rec
    return replace_blocks(plain, plain.w_in, w_rec.to(plain.w_in), plain.w_out, plain.w_skip, leak=plain.leak)


def _wiring(net: Pathways) -> Tensor:
    """Return the recurrent weights W in float64, (..., H, H), without what a leak makes of them."""
    w = (net.w_rec.to_dense() if net.is_sparse else net.w_rec).detach().double()
    if net.leak is None:
        return w
    gain = net.leak.gain.detach().double()[..., None]
    w = w - torch.diag_embed(net.leak.kept.detach().double())
    return w / torch.where(gain == 0, torch.ones_like(gain), gain)  # 0 of a unit that was cut off


def _blocks(net: Pathways) -> list[tuple[slice, slice]]:
    """Return the blocks of w_rec, rows and columns, that are drawn each by itself."""
    if net.layers is None:
        return [(slice(None), slice(None))]
    parts = [(layer.level, slice(layer.start, layer.stop)) for layer in net.layers]
    own = [(part, part) for _, part in parts]
    return own + [(to, source) for high, to in parts for low, source in parts if high == low + 1]


def shuffle_lags(maps: HopMaps, seed: int | np.random.Generator) -> HopMaps:
    """Permute the hops of every input-output pair on its own; what each pair carries in all stays.

    Parameters
    ----------
    maps : HopMaps
    seed : int or numpy Generator
    """
    rng = seed if isinstance(seed, np.random.Generator) else numpy_generator("null model of lags", seed)
    order = torch.from_numpy(rng.random(tuple(maps.values.shape)).argsort(axis=-3)).to(maps.values.device)
    names = maps.input_names, maps.output_names, maps.input_modules, maps.output_modules
    return HopMaps(maps.values.gather(-3, order), maps.hops, *names, maps.levels, timed=maps.timed)


def _shuffle(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros_like(w)
    edges = np.nonzero(w)
    drawn[edges] = rng.permutation(w[edges])
    return drawn


def _rewire(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    heads, tails = (part.tolist() for part in np.nonzero(w))
    if len(heads) < 2:
        return w.copy()
    drawn, signs = w.tolist(), np.sign(w).astype(int).tolist()
    place = {(to, source): edge for edge, (to, source) in enumerate(zip(heads, tails, strict=True))}
    for a, b in rng.integers(len(heads), size=(SWAPS_PER_EDGE * len(heads), 2)).tolist():
        to_a, to_b, from_a, from_b = heads[a], heads[b], tails[a], tails[b]
        row_a, row_b = signs[to_a], signs[to_b]
        sign, other = row_a[from_a], row_b[from_a]
        # crosswise: the two edges have one sign, the two pairs across have another one, or no edge
        if to_a == to_b or sign != row_b[from_b] or other != row_a[from_b] or sign == other:
            continue
        for source in (from_a, from_b):
            row_a[source], row_b[source] = row_b[source], row_a[source]
            drawn[to_a][source], drawn[to_b][source] = drawn[to_b][source], drawn[to_a][source]
            edges = place.pop((to_a, source), None), place.pop((to_b, source), None)
            for edge, to in zip(edges, (to_b, to_a), strict=True):
                if edge is not None:
                    heads[edge] = to
                    place[to, source] = edge
    return np.array(drawn)


def _has_swap(w: np.ndarray) -> bool:
    """Whether two units and two targets lie crosswise somewhere."""
    for sign, other in ((1, 0), (-1, 0), (1, -1)):
        # [a, b]: targets that get one sign from unit a and the other one from unit b
        both = (np.sign(w) == sign).T.astype(float) @ (np.sign(w) == other)
        if ((both > 0) & (both.T > 0)).any():
            return True
    return False


def _match_strength(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = _rewire(w, rng)
    for sign in (1, -1):
        part = np.maximum(sign * drawn, 0)
        lack = np.maximum(sign * w, 0).sum(axis=1) - part.sum(axis=1)
        targets = {j: rows for j in range(w.shape[1]) if len(rows := np.flatnonzero(part[:, j])) > 1}
        for _ in range(DEALS):
            before = part.copy()
            for j in rng.permutation(list(targets)).tolist():
                rows = targets[j]
                wanted = lack[rows] + part[rows, j]
                part[rows[wanted.argsort()], j] = np.sort(part[rows, j])
                lack[rows] = wanted - part[rows, j]
            if np.array_equal(part, before):
                break
        drawn[sign * drawn > 0] = sign * part[part > 0]
    return drawn


def _spectrum(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal(w.shape))
    q = q * np.sign(np.diag(r))  # without this QR is not uniform over rotations
    rotated: np.ndarray = q @ w @ q.T
    return rotated


_DRAW: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "shuffle": _shuffle,
    "rewire": _rewire,
    "strength": _match_strength,
    "spectrum": _spectrum,
}


@takes_models
def strengths(net: Pathways) -> tuple[Tensor, Tensor]:
    """Return the summed recurrent weight into and out of every unit, each of shape (..., H).

    Of leaky units the weights are those of W, without the leak.

    Parameters
    ----------
    net : Pathways
        Any leading axes.
    """
    w = _wiring(net).to(net.w_in)
    return w.sum(-1), w.sum(-2)


@takes_models
def strength_error(net: Pathways, drawn: Pathways) -> float:
    """Return how far a null model misses the strengths: 0 where all sums of weights are the same.

    ``sum |s - s'| / sum |s|`` over all units, directions (into, out of) and signs, s the summed positive
    or negative weight of a unit.

    Parameters
    ----------
    net, drawn : Pathways
        One network, and one drawn from it.
    """
    sums = []
    for one in (net, drawn):
        w = _wiring(one)
        sums.append(
            torch.cat([part.sum(axis) for part in (w.clamp_min(0), -w.clamp_max(0)) for axis in (0, 1)])
        )
    size = float(sums[0].sum())
    return float((sums[0] - sums[1]).abs().sum()) / size if size else 0.0


__all__ = ["NULLS", "null_network", "shuffle_lags", "strength_error", "strengths"]
