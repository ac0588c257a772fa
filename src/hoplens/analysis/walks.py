"""Which walks carry the influence: the strongest single ones, and the units they run through."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hoplens.errors import ParameterError, ShapeError, UnknownNameError, check_count
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.graph.timed import check_one_level, timed_shares

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1 << 22  # candidates of one comparison in the dynamic program: 32 MiB of float64


@takes_models(steps=True)
def top_paths(net: Pathways, source: int | str, target: int | str, hops: int, n: int = 10) -> pd.DataFrame:
    """Return the n strongest single walks of a given length from an input to an output.

    The strength of a walk is the magnitude of the product of its weights. Exact: the k best walks to each
    unit are kept hop by hop (k-best dynamic programming), which costs ``hops n H^2``, whatever the number
    of walks, ``H^(hops - 1)``.

    Parameters
    ----------
    net : Pathways
        One network, static or a graph of each step (``read(at="steps")``).
    source : int or str
        Input, by number or name.
    target : int or str
        Output, by number or name.
    hops : int
        Edges walked, at least 1 (a direct edge has 1).
    n : int, default 10
        Number of walks; fewer are returned where fewer have a product other than 0.

    Returns
    -------
    DataFrame
        ``product``, signed, strongest first; ``units``, the tuple of the hops - 1 hidden units passed;
        ``share``, the part of the magnitude of all such walks together; ``path``, in names. Walks
        of equal magnitude, such as those that take the same edges in another order, come in any order.

    Raises
    ------
    ShapeError
        If the net has leading axes.
    UnknownNameError
        If the input or output does not exist.
    """
    import pandas as pd

    length, count = check_count("hops", hops), check_count("n", n)
    if not net.steps:
        _one_network(net, "top_paths")
    check_one_level(net)
    start = _position("source", source, net.input_names)
    end = _position("target", target, net.output_names)
    ways = _Ways.of(net.detach().check_finite().to(torch.float64), start, end, length)
    walks = ways.best(count)
    total = ways.mass()
    rows = []
    for units in walks:
        product = ways.product(units)
        names = [net.input_names[start], *(net.hidden_names[j] for j in units), net.output_names[end]]
        rows.append((product, units, abs(product) / total if total else 0.0, " > ".join(names)))
    rows.sort(key=lambda row: (-abs(row[0]), row[1]))
    frame = pd.DataFrame(rows, columns=["product", "units", "share", "path"])
    return frame.astype({"product": float, "share": float})


class _Ways(NamedTuple):
    """All walks of one length from an input to an output."""

    entering: Tensor  # (H,)
    edges: tuple[Tensor, ...]  # (H, H) each, in the order walked
    leaving: Tensor  # (H,)
    direct: float | None  # weight of the one edge of walks of one hop

    @classmethod
    def of(cls, net: Pathways, start: int, end: int, hops: int) -> _Ways:
        lag = max(0, hops - 2)
        if hops == 1:
            weight = 0.0 if net.w_skip is None else float(net.w_skip[..., end, start].flatten()[0])
            return cls(net.w_in.new_zeros(0), (), net.w_in.new_zeros(0), weight)
        if not net.steps:
            w_rec = net.w_rec.to_dense()  # once, not for every walk
            return cls(net.w_in[:, start], (w_rec,) * lag, net.w_out[end], None)
        if lag >= len(net.w_in):
            nothing = torch.zeros_like(net.w_in[0, :, start])
            return cls(nothing, (), nothing, None)
        edges = tuple(net.w_rec[:lag].flip(0).unbind(0))
        return cls(net.w_in[lag, :, start], edges, net.w_out[0, end], None)

    def best(self, n: int) -> list[tuple[int, ...]]:
        """Return the units of the n strongest walks, fewer where others have a product of 0."""
        if self.direct is not None:
            return [()] if self.direct else []
        # sums of logarithms order as products do and cannot underflow; a missing edge is -inf
        best = self.entering.abs().log()[:, None]  # (H, k): the k best walks that end in each unit
        origins: list[tuple[Tensor, Tensor]] = []  # unit and rank that each of these walks came from
        logs = {id(edge): edge.abs().log() for edge in self.edges}  # of a static graph one for all hops
        for edge in self.edges:
            values, came_from = _extend(logs[id(edge)], best, n)
            width = best.shape[1]
            origins.append((came_from // width, came_from % width))
            best = values
        ends = (best + self.leaving.abs().log()[:, None]).flatten()
        values, index = ends.topk(min(n, len(ends)))
        walks = []
        for value, place in zip(values.tolist(), index.tolist(), strict=True):
            if value == -torch.inf:
                break
            unit, rank = divmod(place, best.shape[1])
            units = [unit]
            for units_before, ranks_before in reversed(origins):
                unit, rank = int(units_before[unit, rank]), int(ranks_before[unit, rank])
                units.append(unit)
            walks.append(tuple(reversed(units)))
        return walks

    def product(self, units: tuple[int, ...]) -> float:
        """Return the product of the weights of a walk."""
        if self.direct is not None:
            return self.direct
        value = float(self.entering[units[0]]) * float(self.leaving[units[-1]])
        for edge, (tail, head) in zip(self.edges, itertools.pairwise(units), strict=True):
            value *= float(edge[head, tail])
        return value

    def mass(self) -> float:
        """Return the summed magnitude of all walks."""
        if self.direct is not None:
            return abs(self.direct)
        column = self.entering.abs()
        for edge in self.edges:
            column = edge.abs() @ column
        return float(self.leaving.abs() @ column)


def _extend(w_rec: Tensor, best: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n best (value, predecessor) of each unit one edge on, some rows of W at a time."""
    width = best.numel()
    keep = min(n, width)
    rows = max(1, CHUNK // width)
    parts = [(block[:, :, None] + best[None]).flatten(1).topk(keep, dim=1) for block in w_rec.split(rows)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


@takes_models(steps=True)
def flow(net: Pathways, horizon: int) -> Tensor:
    """Return the share of each hidden unit in the pathway mass of each hop.

    The mass of a walk is the magnitude of its product, so that nothing cancels. A walk of k hops visits
    k - 1 hidden units and gives each visit the same part of its mass:
    ``share_k[j] = sum_s f_s[j] b_(k-2-s)[j] / ((k - 1) M_k)`` with ``f_s = |W_rec|^s |W_in| 1``, ``b_r =
    1^T |W_out| |W_rec|^r`` and M_k the mass of all walks of k hops.

    Parameters
    ----------
    net : Pathways
        Any leading axes, or a graph of each step (``read(at="steps")``).
    horizon : int
        L: hops 2 .. L + 1 of one layer, D + 1 .. L + D of a stack of D layers, as in `hop_maps`.

    Returns
    -------
    Tensor, shape (..., K, H)
        Sums to 1 over the units; 0 for a hop without any walk. Direct input-to-output edges pass no unit
        and are left out, so K = horizon.
    """
    length = check_count("horizon", horizon)
    net = net.check_finite()
    if net.steps:
        return timed_shares(net, length)
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    w_rec = net.w_rec.abs()
    backward = w_rec.transpose(0, 1).to_sparse_csr() if net.is_sparse else w_rec.mT
    entering, leaving = net.w_in.abs().sum(-1), net.w_out.abs().sum(-2)
    scale = _growth(w_rec, entering)
    ahead = _powers(w_rec, entering, length + levels - 1, scale)
    back = _powers(backward, leaving, length + levels - 1, scale)
    shares = []
    for visits in range(levels, levels + length):
        passed = (ahead[..., :visits, :] * back[..., :visits, :].flip(-2)).sum(-2)  # (..., H)
        total = passed.sum(-1, keepdim=True)
        shares.append(passed / torch.where(total > 0, total, torch.ones_like(total)))
    return torch.stack(shares, dim=-2)


def _growth(w: Tensor, vector: Tensor) -> Tensor:
    """Return a rough growth a step, shape (...,): a few power iterations, as only its size matters."""
    # infinity norm, for graphs without cycles; by a product, which sparse matrices have too
    growth = (w @ torch.ones_like(vector).unsqueeze(-1)).squeeze(-1).amax(-1)
    growth = torch.where(growth > 0, growth, torch.ones_like(growth))
    for _ in range(8):
        vector = (w @ vector.unsqueeze(-1)).squeeze(-1)
        size = vector.amax(-1)
        growth = torch.where(size > 0, size, growth)
        vector = vector / torch.where(size > 0, size, torch.ones_like(size))[..., None]
    return growth


def _powers(w: Tensor, vector: Tensor, count: int, scale: Tensor) -> Tensor:
    """Return vector, W vector, W^2 vector, .. (..., count, H), each step divided by ``scale`` (...,).

    One scale for all steps and both directions cancels in the shares of a hop, and keeps long horizons
    inside the range of the numbers.
    """
    size = vector.amax(-1, keepdim=True)
    columns = [vector / torch.where(size > 0, size, torch.ones_like(size))]
    for _ in range(count - 1):
        columns.append((w @ columns[-1].unsqueeze(-1)).squeeze(-1) / scale[..., None])
    return torch.stack(columns, dim=-2)


@takes_models
def module_flow(net: Pathways, horizon: int) -> pd.DataFrame:
    """Return the share of each module of hidden units in the pathway mass of each hop.

    Parameters
    ----------
    net : Pathways
        One network with ``hidden_modules``; a stack has its layers as modules.
    horizon : int

    Returns
    -------
    DataFrame
        One row a hop (index ``hop``), one column a module; rows sum to 1.
    """
    import pandas as pd

    _one_network(net, "module_flow")
    if net.hidden_modules is None:
        raise ParameterError("module_flow needs hidden_modules=, the module of each hidden unit")
    shares = flow(net.detach(), horizon).cpu().numpy()
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    hops = pd.RangeIndex(levels + 1, levels + 1 + len(shares), name="hop")
    frame = pd.DataFrame(shares.T, index=pd.Index(net.hidden_modules, name="module"), columns=hops)
    return frame.groupby(level=0, sort=False).sum().T


def _one_network(net: Pathways, what: str) -> None:
    if net.batch_shape:
        raise ShapeError(
            f"{what} takes one network, got leading axes {tuple(net.batch_shape)}; index them first"
        )


def _position(option: str, given: int | str, names: tuple[str, ...]) -> int:
    if isinstance(given, str):
        if given not in names:
            raise UnknownNameError(f"{option} {given!r} does not exist; known: {', '.join(names[:12])}")
        return names.index(given)
    place = check_count(option, given, least=0)
    if place >= len(names):
        raise UnknownNameError(f"{option} {place} does not exist; there are {len(names)}, from 0")
    return place


__all__ = ["flow", "module_flow", "top_paths"]
