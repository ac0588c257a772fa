"""What all penalties share, sums of them, and the penalty on single weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_choice, check_number
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.graph.steps import Grads

BLOCKS = ("in", "rec", "out")


class Penalty(nn.Module):
    """Base class: maps a `Pathways` to one value a network, shape (...,) (a scalar for one network).

    Penalties add up and scale: ``PathwayPenalty(horizon=20) + 0.1 * WeightPenalty(norm="l1")``.
    An own penalty subclasses this and implements ``forward(net)``, or ``size`` if it acts on weights.

    Attributes
    ----------
    acts_on : {"graph", "weights", "data"} or None
        What is penalised; it matters where the graph is not made of the weights alone, as in leaky and gated
        cells. "graph": the graph of the linearised cell. "weights": the weights themselves, of all gates.
        "data": what a model does with given sequences, called as ``penalty(model, inputs, lengths)``. None,
        the default of an own penalty: not said, so that training such cells with it is refused.
    """

    acts_on: ClassVar[Literal["graph", "weights", "data"] | None] = None

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        check_pathways(net)
        return self.size(net.w_in, net.w_rec, net.w_out)

    def size(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return the penalty of any three blocks, shape (...,): those of a gated cell need not make a graph.

        Parameters
        ----------
        w_in, w_rec, w_out : Tensor, shape (..., rows, columns)
        """
        raise UnsupportedModelError(
            f"{type(self).__name__} must implement forward(net), or size(w_in, w_rec, w_out) if it acts on "
            "weights"
        )

    def slopes(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, factors: Tensor) -> Grads:
        """Return the gradients of ``(factors * size).sum()`` by three dense blocks.

        Parameters
        ----------
        w_in, w_rec, w_out : Tensor, shape (..., rows, columns)
        factors : Tensor, shape (...,)
        """
        with torch.enable_grad():
            blocks = [block.detach().requires_grad_() for block in (w_in, w_rec, w_out)]
            total = (factors * self.size(*blocks)).sum()
            found = torch.autograd.grad(total, blocks, allow_unused=True)
        return found[0], found[1], found[2]

    def gradients(self, net: Pathways, factors: Tensor) -> tuple[Tensor, Grads]:
        """Return the penalty and the gradients of ``(factors * penalty).sum()`` by the three blocks.

        The same as ``forward`` and autograd; training calls this, and subclasses may know a faster way.

        Parameters
        ----------
        net : Pathways
            Any; direct edges count in the penalty but get no gradient.
        factors : Tensor, shape (...,)

        Returns
        -------
        penalty : Tensor, shape (...,)
        gradients : tuple of Tensor or None
            By w_in, w_rec and w_out; None where a block does not matter.
        """
        with torch.enable_grad():
            w_in, w_rec, w_out = (b.detach().requires_grad_() for b in (net.w_in, net.w_rec, net.w_out))
            value = self(replace_blocks(net, w_in, w_rec, w_out, net.w_skip, leak=None))
            total = (factors * value).sum()
            found = torch.autograd.grad(total, (w_in, w_rec, w_out), allow_unused=True)
        return value.detach(), (found[0], found[1], found[2])

    def __add__(self, other: Penalty) -> PenaltySum:
        if not isinstance(other, Penalty):
            return NotImplemented
        return PenaltySum([*terms_of(self), *terms_of(other)])

    def __radd__(self, other: int) -> PenaltySum:
        # the built-in sum() starts from the integer 0
        return PenaltySum(terms_of(self)) if other == 0 else NotImplemented

    def __mul__(self, weight: float) -> PenaltySum:
        return PenaltySum([(weight * own, penalty) for own, penalty in terms_of(self)])

    __rmul__ = __mul__


def check_pathways(net: object) -> None:
    """Raise unless ``net`` is a `Pathways`, the one thing that a penalty takes."""
    if not isinstance(net, Pathways):
        raise UnsupportedModelError(
            f"a penalty takes a Pathways, got {type(net).__name__}; "
            "write penalty(hl.read(rnn, readout=linear))"
        )
    if net.steps:
        raise ShapeError(
            f"a penalty on weights takes one graph, got one for each of {len(net.w_in)} steps; read the "
            "model without inputs, or penalise what flows with hl.FlowPenalty"
        )


def check_penalties(terms: Iterable[object]) -> None:
    """Raise unless all terms of a sum are penalties."""
    for term in terms:
        if not isinstance(term, Penalty):
            raise ParameterError(f"a sum of penalties takes hl.Penalty objects, got {type(term).__name__}")


class PenaltySum(Penalty):
    """A weighted sum of penalties.

    Parameters
    ----------
    terms : iterable of (float, Penalty)
        Weights and penalties. No term at all is the penalty 0.
    """

    def __init__(self, terms: Iterable[tuple[float, Penalty]]) -> None:
        super().__init__()
        pairs = list(terms)
        check_penalties(penalty for _, penalty in pairs)
        self.weights = [check_number("the weight of a penalty", weight) for weight, _ in pairs]
        self.penalties = nn.ModuleList([penalty for _, penalty in pairs])

    def forward(self, net: Any, inputs: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Return the weighted sum of the penalties, shape (...,).

        Parameters
        ----------
        net : Pathways
            Or, if a term acts on data, the model; the other terms then act on its graph, `hoplens.read`.
        inputs : Tensor, shape (B, L, I), optional
            For terms that act on data.
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; default all.
        """
        return sum_terms(zip(self.weights, self.penalties, strict=True), net, inputs, lengths)

    def extra_repr(self) -> str:
        """Show the weights."""
        return f"weights={self.weights}"


def terms_of(penalty: Penalty) -> list[tuple[float, Penalty]]:
    """Return the penalties that a sum is made of, with their weights; anything else is its own only term."""
    if isinstance(penalty, PenaltySum):
        return [
            (w, p) for w, p in zip(penalty.weights, penalty.penalties, strict=True) if isinstance(p, Penalty)
        ]
    return [(1.0, penalty)]


def sum_terms(
    terms: Iterable[tuple[float, nn.Module]], net: Any, inputs: Tensor | None, lengths: Tensor | None
) -> Tensor:
    """Return the weighted sum of penalties; see `PenaltySum.forward`."""
    pairs = [pair for weight, term in terms for pair in _scaled(weight, term)]
    along = [(weight, term) for weight, term in pairs if term.acts_on == "data"]
    if along and inputs is None:
        raise UnsupportedModelError(
            f"{type(along[0][1]).__name__} follows a model along its data: call penalty(model, inputs), "
            "inputs of shape (B, L, I)"
        )
    graph = net
    if inputs is not None and not isinstance(net, Pathways) and len(along) < len(pairs):
        from hoplens.models.readers import (
            read,  # readers know every kind of model; penalties need them only here
        )

        graph = read(net)
    if inputs is None or len(along) < len(pairs):
        check_pathways(graph)
    values = [w * (t(net, inputs, lengths) if t.acts_on == "data" else t(graph)) for w, t in pairs]
    if not values:
        return graph.w_in.new_zeros(graph.batch_shape) if isinstance(graph, Pathways) else torch.zeros(())
    total: Tensor = sum(values[1:], start=values[0])
    return total


def _scaled(weight: float, term: nn.Module) -> list[tuple[float, Penalty]]:
    return [(weight * own, part) for own, part in terms_of(term)] if isinstance(term, Penalty) else []


def check_declared(term: Penalty, cell: str) -> None:
    """Raise unless a penalty says what it acts on; for cells whose graph is not made of weights alone."""
    if term.acts_on is None:
        raise UnsupportedModelError(
            f"the graph of {cell} is not made of its weights alone, and {type(term).__name__} does not say "
            'which of them it acts on; give the class acts_on = "graph" (the linearised cell) or '
            'acts_on = "weights" (then implement size(w_in, w_rec, w_out))'
        )


class WeightPenalty(Penalty):
    """Penalise single weights: the baselines ``sum |W|`` and ``sum W^2``.

    Parameters
    ----------
    norm : {"l1", "l2"}, default "l1"
        Sum of absolute values or of squares.
    blocks : sequence of {"in", "rec", "out"}, default all three
        Which blocks of the graph count.
    """

    acts_on = "weights"

    def __init__(self, norm: Literal["l1", "l2"] = "l1", blocks: Sequence[str] = BLOCKS) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, ("l1", "l2"))
        if isinstance(blocks, str) or not blocks:
            raise ParameterError(f"blocks must be a non-empty sequence out of {BLOCKS}, got {blocks!r}")
        self.blocks = tuple(check_choice("block", block, BLOCKS) for block in blocks)

    def size(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor) -> Tensor:
        """Return the penalty of any three blocks, shape (...,); see `Penalty.size`.

        Parameters
        ----------
        w_in, w_rec, w_out : Tensor, shape (..., rows, columns)
        """
        total = w_in.new_zeros(w_in.shape[:-2])
        for name, weight in zip(BLOCKS, (w_in, w_rec, w_out), strict=True):
            if name not in self.blocks:
                continue
            # a sparse block belongs to one network, so that its stored values can be summed as they are
            entries = weight.values()[None] if weight.layout == torch.sparse_csr else weight
            size = entries.abs() if self.norm == "l1" else entries.square()
            total = total + size.sum(dim=(-2, -1))
        return total

    def slopes(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, factors: Tensor) -> Grads:
        """Return the gradients of ``(factors * size).sum()`` by three dense blocks; see `Penalty.slopes`.

        Parameters
        ----------
        w_in, w_rec, w_out : Tensor, shape (..., rows, columns)
        factors : Tensor, shape (...,)
        """
        grads: list[Tensor | None] = []
        with torch.no_grad():
            for name, weight in zip(BLOCKS, (w_in, w_rec, w_out), strict=True):
                slope = weight.sign() if self.norm == "l1" else 2.0 * weight
                grads.append(slope.mul_(factors[..., None, None]) if name in self.blocks else None)
        return grads[0], grads[1], grads[2]

    def gradients(self, net: Pathways, factors: Tensor) -> tuple[Tensor, Grads]:
        """Return the penalty of ``net`` and its gradients times ``factors``; see `Penalty.gradients`."""
        if net.is_sparse:
            return super().gradients(net, factors)
        with torch.no_grad():
            return self(net), self.slopes(net.w_in, net.w_rec, net.w_out, factors)

    def extra_repr(self) -> str:
        """Show the options."""
        return f"norm={self.norm!r}, blocks={self.blocks}"


__all__ = [
    "BLOCKS",
    "Penalty",
    "PenaltySum",
    "WeightPenalty",
    "check_declared",
    "check_pathways",
    "check_penalties",
    "sum_terms",
    "terms_of",
]
