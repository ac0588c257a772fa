"""The routing graph: through which groups of hidden units the influence enters and leaves, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor

from hoplens.analysis.hops import HopMaps
from hoplens.graph.pathways import Pathways

MOST_GROUPS = 6  # of hidden units: more lines than these cross too often to be followed
MOST_ENDS = 16  # inputs or outputs drawn one by one
FEW_UNITS = 8  # up to this many every unit is its own group
PROFILE_HOPS = 6  # steps that groups are found by: later ones repeat the leading directions
BUDGET = 2.5e11  # multiplications; about 5 s on two cores
SINGLE_FROM = 1500  # hidden units from which float32 has to do: widths of lines, not numbers to compare
CLUSTERS = "groups of units that hear the same inputs and drive the same outputs"
Array = NDArray[np.float64]


def routing_graph(net: Pathways, maps: HopMaps) -> dict[str, Any]:
    """Split every hop map by the group of units that a walk enters and the one that it leaves by.

    ``H_k = sum_ab W_out P_b W_rec^(k-2) P_a W_in`` where P_a keeps the units of group a. A line's strength
    is the summed magnitude of its part of H_k: what is left after walks of opposite sign have cancelled.

    Parameters
    ----------
    net : Pathways
        One network.
    maps : HopMaps
        Its hop maps, for the hops and the order of inputs and outputs.

    Returns
    -------
    dict
        ``inputs`` and ``outputs``: names of the I and O ends drawn (modules, or the strongest, of more
        than 16); ``groups``: name, count and first units of each of the A groups; ``source``: what the
        groups are; ``enter``, ``through``, ``leave``: K flat arrays of (A, I), (A, A) as leaving by
        entering group, and (O, A) numbers, or None where a hop has no routes. They are shares of the
        summed ``|H_k|`` (``through``: of the sum over groups). ``note``: what was left out.
    """
    dtype = torch.float32 if net.n_hidden > SINGLE_FROM else torch.float64
    own = net.detach().to("cpu").to(dtype)
    ends = [
        _ends(maps.input_names, maps.input_modules, maps.values.abs().sum((0, 1))),
        _ends(maps.output_names, maps.output_modules, maps.values.abs().sum((0, 2))),
    ]
    hops = [int(k) for k in maps.hops if int(k) >= 2]
    longest = max(hops, default=2)
    step = float(net.n_hidden) ** 2 * min(net.n_inputs, net.n_outputs)  # multiplications a hop and group
    labels, source = _groups(own, max(2, min(MOST_GROUPS, int(BUDGET / (step * longest)))))
    names = sorted(set(labels)) if source == CLUSTERS else list(dict.fromkeys(labels))
    last = min(longest, 2 + int(BUDGET / (step * len(names))))
    parts = _parts(own, [[n for n, g in enumerate(labels) if g == name] for name in names], last, ends)
    enter, through, leave = (_by_hop(parts, maps.hops.tolist(), n) for n in range(3))
    note = "" if last == longest else f"computed up to hop {last}, as the network is large"
    return {
        "inputs": ends[0][0],
        "outputs": ends[1][0],
        "groups": [_describe(own, name, labels) for name in names],
        "source": source,
        "enter": enter,
        "through": through,
        "leave": leave,
        "note": note,
    }


def _by_hop(parts: dict[int, tuple[Array, ...]], hops: Sequence[int], place: int) -> list[Any]:
    return [
        np.array([float(f"{v:.4g}") for v in parts[k][place].ravel()]) if k in parts else None for k in hops
    ]


def _ends(names: Sequence[str], modules: Sequence[str] | None, size: Tensor) -> tuple[list[str], Tensor]:
    """Return the names of drawn ends and a matrix (N, ends) that adds the named ones up."""
    if len(names) <= MOST_ENDS:
        order = (
            sorted(range(len(names)), key=lambda n: modules.index(modules[n]))
            if modules is not None
            else list(range(len(names)))
        )
        return [names[n] for n in order], torch.eye(len(names))[:, order]
    if modules is not None and len(set(modules)) <= MOST_ENDS:
        groups = list(dict.fromkeys(modules))
        return groups, torch.eye(len(groups))[[groups.index(m) for m in modules]]
    kept = sorted(size.argsort(descending=True, stable=True)[: MOST_ENDS - 1].tolist())
    place = {n: m for m, n in enumerate(kept)}
    rows = [place.get(n, len(kept)) for n in range(len(names))]
    return [*(names[n] for n in kept), f"{len(names) - len(kept)} others"], torch.eye(len(kept) + 1)[rows]


def _groups(net: Pathways, most: int) -> tuple[list[str], str]:
    """Return the group of each hidden unit and where the groups come from."""
    if net.layers is not None and 1 < len(net.layers) <= MOST_GROUPS:
        labels = [
            f"layer {n + 1}" for n, layer in enumerate(net.layers) for _ in range(layer.stop - layer.start)
        ]
        return labels, "layers"
    if net.hidden_modules is not None and len(set(net.hidden_modules)) <= 2 * MOST_GROUPS:
        return list(net.hidden_modules), "modules"
    if net.n_hidden <= FEW_UNITS:
        return list(net.hidden_names), "units"
    return _cluster(net, most), CLUSTERS


def _cluster(net: Pathways, most: int) -> list[str]:
    """Group units by the inputs that reach them and the outputs they reach, over a few steps."""
    ahead, back = net.w_in, net.w_out.mT
    heard, driven = [ahead.abs()], [back.abs()]
    w_rec = net.w_rec
    for _ in range(PROFILE_HOPS):
        ahead, back = w_rec @ ahead, w_rec.mT @ back
        ahead, back = (x / x.abs().amax().clamp_min(1e-30) for x in (ahead, back))
        heard.append(ahead.abs())
        driven.append(back.abs())
    profile = torch.cat([_unit_rows(sum(heard)), _unit_rows(sum(driven))], dim=1).double().numpy()  # type: ignore[arg-type]
    kinds = len(np.unique(profile.round(9), axis=0))
    count = min(most, kinds, max(2, round((net.n_hidden / 2) ** 0.5)))
    _, found = kmeans2(profile, count, minit="++", seed=0, missing="warn")
    # ordered by the input that each hears most, so that lines cross little
    place = {g: float(profile[found == g][:, : net.n_inputs].sum(0).argmax()) for g in set(found.tolist())}
    letters = {g: chr(ord("A") + n) for n, g in enumerate(sorted(place, key=lambda g: (place[g], g)))}
    return [letters[g] for g in found.tolist()]


def _unit_rows(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(size > 0, size, torch.ones_like(size))


def _parts(
    net: Pathways, units: list[list[int]], last: int, ends: list[tuple[list[str], Tensor]]
) -> dict[int, tuple[Array, ...]]:
    """Return, by hop, the strengths (A, inputs), (B, A) and (outputs, B)."""
    turned = net.n_inputs < net.n_outputs  # recurse from the narrower side
    near, far = (net.w_in.mT, net.w_out.mT) if turned else (net.w_out, net.w_in)
    w_rec = net.w_rec
    rows = near.new_zeros(len(units), *near.shape)  # (B, O, H): W_out P_b W_rec^s
    for b, own in enumerate(units):
        rows[b][:, own] = near[:, own]
    found = {}
    for hop in range(2, last + 1):
        blocks = torch.stack([rows[:, :, own] @ far[own] for own in units], dim=1)  # (B, A, O, I)
        if turned:  # seen from the inputs: (A, B, I, O)
            blocks = blocks.transpose(0, 1).transpose(2, 3)
        found[hop] = _strengths(blocks.double(), ends)
        flat = rows.flatten(0, 1)
        flat = (w_rec @ flat.mT).mT if turned else (w_rec.mT @ flat.mT).mT
        rows = (flat / flat.abs().amax().clamp_min(1e-30)).view_as(rows)  # only shares are kept
    return found


def _strengths(blocks: Tensor, ends: list[tuple[list[str], Tensor]]) -> tuple[Array, ...]:
    whole = blocks.sum((0, 1)).abs().sum().clamp_min(1e-300)
    enter = blocks.sum(0).abs().sum(1) @ ends[0][1].double() / whole  # (A, inputs)
    leave = blocks.sum(1).abs().sum(2) @ ends[1][1].double() / whole  # (B, outputs)
    through = blocks.abs().sum((2, 3))
    through = through / through.sum().clamp_min(1e-300)
    return enter.numpy(), through.numpy(), leave.mT.numpy()


def _describe(net: Pathways, name: str, labels: Sequence[str]) -> dict[str, Any]:
    units = [n for n, g in enumerate(labels) if g == name]
    return {"name": name, "count": len(units), "units": [net.hidden_names[n] for n in units[:12]]}


__all__ = ["routing_graph"]
