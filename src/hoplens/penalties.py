"""Differentiable penalties on pathways and on weights, for any training loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, UnsupportedModelError, check_choice, check_count, check_number
from hoplens.fused import pathway_gradients, pathway_size
from hoplens.kernels import thin_products, widen
from hoplens.pathways import Pathways, replace_blocks
from hoplens.plans import PenaltyPlan, make_plan, starts_at_inputs, use_doubling
from hoplens.radius import spectral_radius
from hoplens.resolvent import check_converges, normalising_scale, scale_blocks
from hoplens.solves import solve_resolvent
from hoplens.steps import Grads

BLOCKS = ("in", "rec", "out")


class Penalty(nn.Module):
    """Base class: maps a `Pathways` to one value a network, shape (...,) (a scalar for one network).

    Penalties add up and scale: ``PathwayPenalty(horizon=20) + 0.1 * WeightPenalty(norm="l1")``.
    An own penalty subclasses this and implements ``forward(net)``.
    """

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(net)")

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
            value = self(replace_blocks(net, w_in, w_rec, w_out, net.w_skip))
            total = (factors * value).sum()
            found = torch.autograd.grad(total, (w_in, w_rec, w_out), allow_unused=True)
        return value.detach(), (found[0], found[1], found[2])

    def __add__(self, other: Penalty) -> PenaltySum:
        if not isinstance(other, Penalty):
            return NotImplemented
        return PenaltySum([*_terms(self), *_terms(other)])

    def __radd__(self, other: int) -> PenaltySum:
        # the built-in sum() starts from the integer 0
        return PenaltySum(_terms(self)) if other == 0 else NotImplemented

    def __mul__(self, weight: float) -> PenaltySum:
        return PenaltySum([(weight * own, penalty) for own, penalty in _terms(self)])

    __rmul__ = __mul__


def check_pathways(net: object) -> None:
    """Raise unless ``net`` is a `Pathways`, the one thing that a penalty takes."""
    if not isinstance(net, Pathways):
        raise UnsupportedModelError(
            f"a penalty takes a Pathways, got {type(net).__name__}; "
            "write penalty(hl.read(rnn, readout=linear))"
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

    def forward(self, net: Pathways) -> Tensor:
        """Return the weighted sum of the penalties of ``net``, shape (...,)."""
        check_pathways(net)
        total = net.w_in.new_zeros(net.batch_shape)
        for weight, penalty in zip(self.weights, self.penalties, strict=True):
            total = total + weight * penalty(net)
        return total

    def extra_repr(self) -> str:
        """Show the weights."""
        return f"weights={self.weights}"


def _nothing(net: Pathways) -> Tensor:
    """Return 0 a network, in the graph of the first block that is trained."""
    blocks = (net.w_in, net.w_out, net.w_skip)
    trained = next((block for block in blocks if block is not None and block.requires_grad), None)
    if trained is None:
        trained = net.w_rec.values()[None] if net.is_sparse else net.w_rec
    return trained[..., :0].sum(dim=(-2, -1))


def _terms(penalty: Penalty) -> list[tuple[float, Penalty]]:
    if isinstance(penalty, PenaltySum):
        return [
            (w, p) for w, p in zip(penalty.weights, penalty.penalties, strict=True) if isinstance(p, Penalty)
        ]
    return [(1.0, penalty)]


class PathwayPenalty(Penalty):
    """Penalise the pathways of a network, hop by hop or summed over hops.

    With hop maps ``H_k`` and damping a, over k = 2 .. horizon + 1 (and k = 1 for direct edges):

    * ``across="hops"``, l1: ``sum_k sum_oi |a^k H_k[o, i]|``; frobenius: ``sum_k |a^k H_k|_F``;
    * ``across="sum"``, l1: ``sum_oi |R_io[o, i]|`` with ``R_io = sum_k a^k H_k`` (the R-RNN of the
      paper); frobenius: ``|R_io|_F``.

    With "sum", hops of opposite sign cancel, so that pathways can grow while the penalty falls; "hops"
    closes that loophole. Finite and differentiable at any spectral radius where the horizon is finite.

    Parameters
    ----------
    horizon : int or None
        Time steps covered; None is the full resolvent (``across="sum"`` only), which exists while damping
        times spectral radius is below 1.
    damping : float, default 0.9
        Factor on every hop, above 0 and at most 1.
    across : {"hops", "sum"}, default "hops"
        Whether every hop counts by itself or hops are added first.
    norm : {"l1", "frobenius"}, default "l1"
        The norm of a map.
    normalise : bool, default False
        Divide the graph by its spectral radius first. The paper computes the penalty without, since an
        optimiser lowers a normalised one by growing the spectral radius.
    every : int, default 1
        Compute the penalty in one training call out of ``every``, times ``every``, and return 0 in the
        others: the mean over calls is exact, the cost falls to ``1 / every``. Without ``generator`` these
        are calls 0, every, 2 every, ...; with one, each call draws its own lot.
    sample : int, optional
        Follow only so many nodes of the side with fewer nodes (inputs or outputs), drawn without
        replacement each training call, and scale up: the expectation is exact. ``norm="l1"`` only, where
        the penalty is a sum over nodes; needs ``generator``.
    generator : torch.Generator, optional
        Source of the draws, a CPU generator. The global random state is never used.
    dtype : torch.dtype, optional
        Of the value; default that of the weights. Half precision is always computed in float32; ask for
        ``torch.float32`` where a value may exceed 65504.

    Notes
    -----
    Source: arXiv:2605.03598 for "sum"; "hops" is hoplens's own.

    ``every`` and ``sample`` act while the module is in training mode and gradients are on; after
    ``.eval()`` or under ``torch.no_grad()`` every call is exact. With v_j the penalty of node j of n alone,
    sampling s nodes has variance ``n^2 (1 - s/n) var(v) / s`` (var with n - 1); ``every=m`` with a generator
    has variance ``(m - 1) value^2``. Both hold for each entry of the gradient likewise. Adam divides by the
    root mean square of gradients, which ``every`` raises: prefer small values (2 to 4).
    """

    def __init__(
        self,
        horizon: int | None,
        damping: float = 0.9,
        *,
        across: Literal["hops", "sum"] = "hops",
        norm: Literal["l1", "frobenius"] = "l1",
        normalise: bool = False,
        every: int = 1,
        sample: int | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.horizon = None if horizon is None else check_count("horizon", horizon)
        self.damping = check_number("damping", damping, above=0.0, most=1.0)
        self.across = check_choice("across", across, ("hops", "sum"))
        self.norm = check_choice("norm", norm, ("l1", "frobenius"))
        self.normalise = normalise
        self.every = check_count("every", every)
        self.sample = None if sample is None else check_count("sample", sample)
        self.generator = generator
        self.dtype = dtype
        self.calls = 0
        if horizon is None and across == "hops":
            raise ParameterError('across="hops" needs a finite horizon; horizon=None goes with across="sum"')
        if horizon is None and normalise and self.damping >= 1.0:
            raise ParameterError("a full normalised resolvent needs damping below 1")
        if sample is not None and norm != "l1":
            raise ParameterError(f'sample= needs norm="l1", a sum over nodes, got norm={norm!r}')
        if sample is not None and generator is None:
            raise ParameterError("sample= needs generator=; pass torch.Generator().manual_seed(...)")

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        check_pathways(net)
        dtype = self.dtype or net.w_in.dtype
        weight = 1.0
        if self.training and torch.is_grad_enabled():
            if not self._due():  # zero, yet part of the graph, so that a loss of nothing else can go back
                return _nothing(net).to(dtype)
            weight = float(self.every)
            if self.sample is not None:
                net, share = self._draw(net, self.sample)
                weight *= share
        value = self._value(net)
        return (value if weight == 1.0 else value * weight).to(dtype)

    def plan(self, net: Pathways) -> PenaltyPlan:
        """Return how the penalty of this network is computed and what it costs; print it.

        Parameters
        ----------
        net : Pathways
            Any leading axes; only shapes matter.
        """
        return make_plan(net, self.horizon, every=self.every, sample=self.sample)

    def gradients(self, net: Pathways, factors: Tensor) -> tuple[Tensor, Grads]:
        """Return the penalty of ``net`` and its gradients times ``factors``; see `Penalty.gradients`."""
        plain = self.horizon is not None and not self.normalise and self.sample is None and self.dtype is None
        if not plain or net.w_skip is not None or net.is_sparse or widen(net.w_in) is not net.w_in:
            return super().gradients(net, factors)
        assert self.horizon is not None
        if self.training and not self._due():
            return torch.zeros_like(factors), (None, None, None)
        weight = self.every if self.training else 1
        value, grads = pathway_gradients(
            net.w_in,
            net.w_rec,
            net.w_out,
            self.horizon,
            factors * weight if weight > 1 else factors,
            damping=self.damping,
            across=self.across,
            norm=self.norm,
            doubling=self._doubles(net, self.horizon),
        )
        return value * weight if weight > 1 else value, grads

    def _doubles(self, net: Pathways, horizon: int) -> bool:
        thin = min(net.n_inputs, net.n_outputs)
        return use_doubling(horizon, net.n_hidden, thin, net.batch_shape.numel(), net.w_in.device.type)

    def _due(self) -> bool:
        """Count a call and say whether it computes anything."""
        self.calls += 1
        if self.every == 1:
            return True
        if self.generator is None:
            return (self.calls - 1) % self.every == 0
        return int(torch.randint(self.every, (1,), generator=self.generator)) == 0

    def _draw(self, net: Pathways, sample: int) -> tuple[Pathways, float]:
        """Return the network with a sample of the nodes of its smaller side, and the factor to scale by."""
        inputs = starts_at_inputs(net)
        count = net.n_inputs if inputs else net.n_outputs
        if sample >= count:
            return net, 1.0
        chosen = torch.randperm(count, generator=self.generator)[:sample].to(net.w_in.device)
        w_in, w_out, w_skip = net.w_in, net.w_out, net.w_skip
        if inputs:
            w_in = w_in.index_select(-1, chosen)
        else:
            w_out = w_out.index_select(-2, chosen)
        if w_skip is not None:
            w_skip = w_skip.index_select(-1 if inputs else -2, chosen)
        return Pathways(w_in, net.w_rec, w_out, w_skip), count / sample

    def _value(self, net: Pathways) -> Tensor:
        if self.normalise:
            net = scale_blocks(net, 1.0 / normalising_scale(spectral_radius(net)))
        if self.horizon is None:
            check_converges(self.damping, spectral_radius(net))
            total = solve_resolvent(net, net.w_in.new_full(net.batch_shape, self.damping))
            return self._size(total)
        if net.w_skip is not None and self.across == "sum":
            w_in, w_rec, w_out = (widen(w) for w in (net.w_in, net.w_rec, net.w_out))
            maps = thin_products(w_in, w_rec, w_out, self.horizon, factor=self.damping)
            return self._size(self.damping**2 * maps.sum(dim=-3) + self.damping * widen(net.w_skip))
        value = pathway_size(
            net.w_in,
            net.w_rec,
            net.w_out,
            self.horizon,
            damping=self.damping,
            across=self.across,
            norm=self.norm,
            doubling=not net.is_sparse and self._doubles(net, self.horizon),
        )
        return value if net.w_skip is None else value + self._size(self.damping * widen(net.w_skip))

    def _size(self, maps: Tensor) -> Tensor:
        if self.norm == "l1":
            return maps.abs().sum(dim=(-2, -1))
        size: Tensor = torch.linalg.vector_norm(maps, dim=(-2, -1))
        return size

    def extra_repr(self) -> str:
        """Show the options."""
        return (
            f"horizon={self.horizon}, damping={self.damping}, across={self.across!r}, norm={self.norm!r}"
            + (", normalise=True" if self.normalise else "")
            + (f", every={self.every}" if self.every > 1 else "")
            + (f", sample={self.sample}" if self.sample is not None else "")
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

    def __init__(self, norm: Literal["l1", "l2"] = "l1", blocks: Sequence[str] = BLOCKS) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, ("l1", "l2"))
        if isinstance(blocks, str) or not blocks:
            raise ParameterError(f"blocks must be a non-empty sequence out of {BLOCKS}, got {blocks!r}")
        self.blocks = tuple(check_choice("block", block, BLOCKS) for block in blocks)

    def forward(self, net: Pathways) -> Tensor:
        """Return the penalty of each network of ``net``, shape (...,)."""
        check_pathways(net)
        total = net.w_in.new_zeros(net.batch_shape)
        for block in self.blocks:
            weight: Tensor = getattr(net, f"w_{block}")
            # a sparse block belongs to one network, so that its stored values can be summed as they are
            entries = weight.values()[None] if weight.layout == torch.sparse_csr else weight
            size = entries.abs() if self.norm == "l1" else entries.square()
            total = total + size.sum(dim=(-2, -1))
        return total

    def gradients(self, net: Pathways, factors: Tensor) -> tuple[Tensor, Grads]:
        """Return the penalty of ``net`` and its gradients times ``factors``; see `Penalty.gradients`."""
        if net.is_sparse:
            return super().gradients(net, factors)
        grads: list[Tensor | None] = []
        with torch.no_grad():
            for block in BLOCKS:
                weight: Tensor = getattr(net, f"w_{block}")
                slope = weight.sign() if self.norm == "l1" else 2.0 * weight
                grads.append(slope.mul_(factors[..., None, None]) if block in self.blocks else None)
            return self(net), (grads[0], grads[1], grads[2])

    def extra_repr(self) -> str:
        """Show the options."""
        return f"norm={self.norm!r}, blocks={self.blocks}"
