"""Null models: networks that keep some properties of a network and are random in the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, check_choice
from hoplens.hops import HopMaps
from hoplens.pathways import Pathways, replace_blocks

NULLS = ("shuffle", "rewire", "strength", "spectrum", "lags")
SWAPS_PER_EDGE = 10  # Maslov and Sneppen's mixing length, generous


def null_network(net: Pathways, null: str, seed: int | np.random.Generator) -> Pathways:
    """Draw one random network that keeps some properties of another.

    Input and output weights stay; the recurrent graph is drawn anew.

    Parameters
    ----------
    net : Pathways
        One network; a sparse or low-rank w_rec becomes dense.
    null : {"shuffle", "rewire", "strength", "spectrum"}
        * ``"shuffle"``: the weights of the existing edges are permuted over these edges.
        * ``"rewire"``: edges of one sign swap their targets in pairs (Maslov and Sneppen 2002), so that
          the numbers of positive and negative edges into and out of every unit stay; weights travel with
          the edge's source. Self-loops count as edges of their unit.
        * ``"strength"``: rewired, and the weights of each sign are then assigned again so that the summed
          weight out of and into every unit approaches the original (after Rubinov and Sporns 2011; the
          correlation of strengths is close to 1, not exact).
        * ``"spectrum"``: ``Q W Q^T`` with a random orthogonal Q: same eigenvalues, singular values and
          non-normality, no relation to inputs and outputs.
    seed : int or numpy Generator

    Returns
    -------
    Pathways
    """
    check_choice("null", null, NULLS[:-1])
    if net.batch_shape:
        raise ShapeError(f"a null model takes one network, got leading axes {tuple(net.batch_shape)}")
    if net.layers is not None:
        raise ParameterError("null models shuffle one layer's recurrent edges; read the layers one by one")
    rng = np.random.default_rng(seed)
    dense = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    w = dense.detach().cpu().double().numpy()
    drawn = _DRAW[null](w, rng)
    w_rec = torch.from_numpy(drawn).to(dense)
    return replace_blocks(net.detach(), net.w_in.detach(), w_rec, net.w_out.detach(), net.w_skip)


def shuffle_lags(maps: HopMaps, seed: int | np.random.Generator) -> HopMaps:
    """Permute the hops of every input-output pair on its own; what each pair carries in all stays.

    Parameters
    ----------
    maps : HopMaps
    seed : int or numpy Generator
    """
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.random(tuple(maps.values.shape)).argsort(axis=-3)).to(maps.values.device)
    names = maps.input_names, maps.output_names, maps.input_modules, maps.output_modules
    return HopMaps(maps.values.gather(-3, order), maps.hops, *names, maps.levels)


def _shuffle(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros_like(w)
    edges = np.nonzero(w)
    drawn[edges] = rng.permutation(w[edges])
    return drawn


def _rewire(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = w.copy()
    for sign in (1, -1):
        heads, tails = np.nonzero(np.sign(w) == sign)
        if len(heads) > 1:
            _swap(drawn, heads.copy(), tails, rng)
    return drawn


def _swap(w: np.ndarray, heads: np.ndarray, tails: np.ndarray, rng: np.random.Generator) -> None:
    """Swap the heads of edge pairs in place; a swap that would double an edge is left out."""
    pairs = rng.integers(len(heads), size=(SWAPS_PER_EDGE * len(heads), 2))
    for a, b in pairs.tolist():
        to_a, to_b, from_a, from_b = heads[a], heads[b], tails[a], tails[b]
        if to_a == to_b or from_a == from_b or w[to_b, from_a] or w[to_a, from_b]:
            continue
        w[to_b, from_a], w[to_a, from_a] = w[to_a, from_a], 0.0
        w[to_a, from_b], w[to_b, from_b] = w[to_b, from_b], 0.0
        heads[a], heads[b] = to_b, to_a


def _match_strength(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = _rewire(w, rng)
    for sign in (1, -1):
        target = np.maximum(sign * w, 0)
        heads, tails = np.nonzero(np.maximum(sign * drawn, 0))
        if not len(heads):
            continue
        weights = np.sort(target[target > 0])
        left_out, left_in = target.sum(axis=0), target.sum(axis=1)
        open_edges = np.ones(len(heads), dtype=bool)
        # the largest remaining weight goes to an edge whose two ends still lack most
        for weight in weights[::-1]:
            lack = np.where(open_edges, left_in[heads] * left_out[tails], -np.inf)
            best = int(rng.choice(np.flatnonzero(lack == lack.max())))
            head, tail = heads[best], tails[best]
            drawn[head, tail] = sign * weight
            left_in[head] = max(left_in[head] - weight, 0.0)
            left_out[tail] = max(left_out[tail] - weight, 0.0)
            open_edges[best] = False
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


def strengths(net: Pathways) -> tuple[Tensor, Tensor]:
    """Return the summed recurrent weight into and out of every unit, each of shape (..., H)."""
    w_rec = net.w_rec.to_dense() if net.is_sparse else net.w_rec
    return w_rec.sum(-1), w_rec.sum(-2)


__all__ = ["NULLS", "null_network", "shuffle_lags", "strengths"]
