"""Differentiable penalties on pathways and on weights, for any training loop."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hoplens.analysis.resolvent import check_converges, normalising_scale, scale_blocks
from hoplens.errors import ParameterError, check_choice, check_count, check_number
from hoplens.graph.chain import thin_products, widen
from hoplens.graph.fused import pathway_gradients, pathway_size
from hoplens.graph.pathways import Pathways
from hoplens.graph.radius import spectral_radius
from hoplens.graph.solves import solve_resolvent
from hoplens.graph.steps import Grads
from hoplens.penalties.base import Penalty, PenaltySum, WeightPenalty, check_pathways, check_penalties
from hoplens.penalties.costs import PenaltyCost, make_plan, starts_at_inputs, use_doubling

READOUTS = ("last", "every")


def _nothing(net: Pathways) -> Tensor:
    """Return 0 a network, in the graph of the first block that is trained."""
    blocks = (net.w_in, net.w_out, net.w_skip)
    trained = next((block for block in blocks if block is not None and block.requires_grad), None)
    if trained is None:
        trained = net.w_rec.values()[None] if net.is_sparse else net.w_rec
    return trained[..., :0].sum(dim=(-2, -1))


class PathwayPenalty(Penalty):
    """Penalise the pathways of a network, hop by hop or summed over hops.

    With hop maps ``H_k`` and damping a, over k = 2 .. horizon + 1 (and k = 1 for direct edges):

    * ``across="hops"``, l1: ``sum_k sum_oi |a^k H_k[o, i]|``; frobenius: ``sum_k |a^k H_k|_F``;
    * ``across="sum"``, l1: ``sum_oi |R_io[o, i]|`` with ``R_io = sum_k a^k H_k`` (the R-RNN of the
      paper); frobenius: ``|R_io|_F``.

    With "sum", hops of opposite sign cancel, so that pathways can grow while the penalty falls; "hops"
    closes that loophole. Finite and differentiable at any spectral radius where the horizon is finite.

    Where a loss reads out after every step t = 1 .. L, read-out t sees hops 2 .. t + 1 only.
    ``readouts="every"`` is the mean over these read-outs of the penalty that each deserves,
    ``1/L sum_t penalty(hops 2 .. t + 1)``:

    * ``across="hops"``: ``sum_k (L - k + 2) / L |a^k H_k|``, hop k counting for the L - k + 2 read-outs
      that see it;
    * ``across="sum"``: ``1/L sum_t |P_t|`` with the partial sums ``P_t = sum_(k <= t + 1) a^k H_k``.

    A horizon below L leaves out hops beyond it at every read-out: ``min(t, horizon)`` in place of t.

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
    readouts : {"last", "every"}, default "last"
        Whether the loss reads out after the last step or after every one.
    length : int, optional
        Steps L of a sequence, for ``readouts="every"``; default ``horizon``.
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

    acts_on = "graph"

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
        readouts: Literal["last", "every"] = "last",
        length: int | None = None,
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
        self.readouts = check_choice("readouts", readouts, READOUTS)
        self.length = self._check_length(length)
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

    @property
    def steps(self) -> int | None:
        """Number of read-outs that the mean is over; None for the last one only."""
        return None if self.readouts == "last" else self.length

    def _check_length(self, length: int | None) -> int | None:
        if self.readouts == "last":
            if length is not None:
                raise ParameterError('length= goes with readouts="every"; leave it out')
            return None
        if self.horizon is None:
            raise ParameterError('readouts="every" needs a finite horizon')
        return self.horizon if length is None else check_count("length", length, least=self.horizon)

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

    def plan(self, net: Pathways) -> PenaltyCost:
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
            steps=self.steps,
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
            radius = spectral_radius(net)
            check_converges(self.damping, radius)
            total = solve_resolvent(net, net.w_in.new_full(net.batch_shape, self.damping), radius)
            return self._size(total)
        if net.w_skip is not None and self.across == "sum":
            w_in, w_rec, w_out = (widen(w) for w in (net.w_in, net.w_rec, net.w_out))
            maps = self.damping**2 * thin_products(w_in, w_rec, w_out, self.horizon, factor=self.damping)
            direct = self.damping * widen(net.w_skip)
            if self.steps is None:
                return self._size(maps.sum(dim=-3) + direct)
            sizes = self._size(maps.cumsum(dim=-3) + direct.unsqueeze(-3))
            return (sizes.sum(dim=-1) + (self.steps - self.horizon) * sizes[..., -1]) / self.steps
        value = pathway_size(
            net.w_in,
            net.w_rec,
            net.w_out,
            self.horizon,
            damping=self.damping,
            across=self.across,
            norm=self.norm,
            doubling=not net.is_sparse and self._doubles(net, self.horizon),
            steps=self.steps,
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
            + (f", readouts='every', length={self.length}" if self.steps is not None else "")
        )


__all__ = ["PathwayPenalty", "Penalty", "PenaltySum", "WeightPenalty", "check_pathways", "check_penalties"]
