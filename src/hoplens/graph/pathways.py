"""The central value: a recurrent network as a weighted directed graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import NonFiniteError, ShapeError
from hoplens.graph.parts import (
    Agreement,
    Layer,
    Leak,
    LowRank,
    check_layers,
    check_leak,
    checked_blocks,
    labels,
    select_networks,
)
from hoplens.lookup import look_up

if TYPE_CHECKING:
    import networkx as nx

RAW_WEIGHTS = "raw weights"
LABELS = (
    "input_names", "output_names", "input_modules", "output_modules", "hidden_names", "hidden_modules",
    "layers",
)  # fmt: skip


@dataclass(frozen=True, eq=False, init=False)
class Pathways:
    """The blocks of a recurrent network's graph, with any leading batch axes.

    The graph has I input nodes, H hidden nodes and O output nodes. Weights keep torch's orientation:
    ``W[i, j]`` is the edge j -> i. The network is ``h_t = f(w_in x_t + w_rec h_(t-1))``,
    ``y_t = w_out h_t + w_skip x_t``; biases carry no pathway and are left out.

    Parameters
    ----------
    w_in : Tensor or array, shape (..., H, I)
        Edges from inputs to hidden units.
    w_rec : Tensor, array, SciPy sparse matrix or LowRank, shape (..., H, H)
        Edges between hidden units. A sparse matrix (SciPy, or torch CSR) has no leading axes and stays
        sparse; ``LowRank(u, v, diagonal)`` stays factored, and ``net.w_rec`` then builds the dense matrix
        anew.
    w_out : Tensor or array, shape (..., O, H)
        Edges from hidden units to outputs.
    w_skip : Tensor or array, shape (..., O, I), optional
        Edges straight from inputs to outputs (walks of one hop).
    input_names, output_names : sequence of str, optional
        Names of the I inputs and O outputs; default ``x0, x1, ...`` and ``y0, y1, ...``.
    input_modules, output_modules : sequence of str, optional
        The module that each input and output belongs to, used to order and aggregate.
    hidden_names, hidden_modules : sequence of str, optional
        Names (default ``h0, h1, ...``) and modules of the H hidden units.
    layers : sequence of Layer, optional
        The layers of a stacked network. An edge inside a layer takes one time step, an edge from a layer
        to the next takes none (`hoplens.lag_maps`). None: every edge between hidden units takes a step.
    leak : Leak, optional
        What of ``w_rec`` is the leak of leaky units and not their wiring.
    steps : bool, default False
        Whether the leading axis is time: entry n is the graph of the step n steps before the read-out.
    agreement : Agreement, optional
        How well the graph predicts the exact maps along the data that it was read on.
    provenance : str
        Where the weights come from: raw weights, or a Jacobian and the point it was taken at.

    Raises
    ------
    ShapeError
        If shapes, dtypes or devices do not fit together.
    """

    w_in: Tensor
    w_out: Tensor
    w_skip: Tensor | None
    factors: LowRank | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_modules: tuple[str, ...] | None
    output_modules: tuple[str, ...] | None
    hidden_names: tuple[str, ...]
    hidden_modules: tuple[str, ...] | None
    layers: tuple[Layer, ...] | None
    leak: Leak | None
    steps: bool
    agreement: Agreement | None
    provenance: str
    _recurrent: Tensor | None

    def __init__(
        self,
        w_in: Any,
        w_rec: Any,
        w_out: Any,
        w_skip: Any = None,
        *,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        input_modules: Sequence[str] | None = None,
        output_modules: Sequence[str] | None = None,
        hidden_names: Sequence[str] | None = None,
        hidden_modules: Sequence[str] | None = None,
        layers: Sequence[Layer] | None = None,
        leak: Leak | None = None,
        steps: bool = False,
        agreement: Agreement | None = None,
        provenance: str = RAW_WEIGHTS,
    ) -> None:
        blocks, factors = checked_blocks(w_in, w_rec, w_out, w_skip)
        n_inputs, n_outputs = blocks["w_in"].shape[-1], blocks["w_out"].shape[-2]
        n_hidden = blocks["w_in"].shape[-2]
        values: dict[str, Any] = {
            "w_in": blocks["w_in"],
            "w_out": blocks["w_out"],
            "w_skip": blocks.get("w_skip"),
            "factors": factors,
            "_recurrent": blocks.get("w_rec"),
            "hidden_names": labels("hidden_names", hidden_names, n_hidden, "h"),
            "hidden_modules": labels("hidden_modules", hidden_modules, n_hidden, None),
            "layers": check_layers(layers, n_hidden),
            "leak": check_leak(leak, blocks["w_in"]),
            "input_names": labels("input_names", input_names, n_inputs, "x"),
            "output_names": labels("output_names", output_names, n_outputs, "y"),
            "input_modules": labels("input_modules", input_modules, n_inputs, None),
            "output_modules": labels("output_modules", output_modules, n_outputs, None),
            "steps": steps,
            "agreement": agreement,
            "provenance": provenance,
        }
        if steps and blocks["w_in"].dim() != 3:
            raise ShapeError(
                "a graph of each step needs blocks with one leading axis, time, got w_in of shape "
                f"{tuple(blocks['w_in'].shape)}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def w_rec(self) -> Tensor:
        """Edges between hidden units, shape (..., H, H); built anew from the factors where low rank."""
        if self._recurrent is not None:
            return self._recurrent
        assert self.factors is not None  # the constructor sets one of the two
        product = self.factors.u @ self.factors.v.mT
        own = self.factors.diagonal
        return product if own is None else product + torch.diag_embed(own)

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.w_in.shape[-1]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units, H."""
        return self.w_in.shape[-2]

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.w_out.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes, e.g. ``(E,)`` for an ensemble, ``()`` for one network."""
        return self.w_in.shape[:-2]

    @property
    def is_sparse(self) -> bool:
        """Whether ``w_rec`` is stored sparse."""
        return self._recurrent is not None and self._recurrent.layout != torch.strided

    def __repr__(self) -> str:
        axis = "steps" if self.steps else "batch"
        batch = f", {axis}={tuple(self.batch_shape)}" if self.batch_shape else ""
        kind = "sparse" if self.is_sparse else "dense"
        if self.factors is not None:
            kind = f"rank {self.factors.u.shape[-1]}"
        return (
            f"Pathways({self.n_inputs} inputs -> {self.n_hidden} hidden ({kind}) -> {self.n_outputs} outputs"
            f"{batch}, {str(self.w_in.dtype).removeprefix('torch.')}, {self.w_in.device}, {self.provenance}"
            + (f"; {self.agreement})" if self.agreement else ")")
        )

    def __getitem__(self, index: Any) -> Pathways:
        """Select along the leading axes: one network of an ensemble, or a slice of it.

        Of a graph of each step the first steps, ``net[:n]``, are one; any others are static graphs, as what
        enters before them does not reach the read-out through them alone.
        """
        if not self.batch_shape:
            raise ShapeError("this Pathways holds one network and has no leading axis to index")
        # what is known of all says nothing of some
        part = self._map(lambda w: select_networks(w, index, 2), lambda own: select_networks(own, index, 1))
        first = isinstance(index, slice) and index.start in (None, 0) and index.step in (None, 1)
        if part.steps and not first:
            object.__setattr__(part, "steps", False)
        return part

    def to(self, target: torch.device | torch.dtype | str) -> Pathways:
        """Return the same graph on another device or in another dtype.

        Parameters
        ----------
        target : torch.device, torch.dtype or str
            The device, its name (``"cuda"``), or the dtype.
        """
        return self._map(lambda w: w.to(target), agreement=self.agreement)

    def detach(self) -> Pathways:
        """Return the same graph cut from autograd."""
        return self._map(Tensor.detach, agreement=self.agreement)

    def _map(
        self,
        function: Callable[[Tensor], Tensor],
        on_leak: Callable[[Tensor], Tensor] | None = None,
        agreement: Agreement | None = None,
    ) -> Pathways:
        """Apply a function to every block, and to the parts of the leak unless they take another."""
        skip = None if self.w_skip is None else function(self.w_skip)
        leak = None if self.leak is None else Leak(*map(on_leak or function, self.leak))
        w_in, w_out = function(self.w_in), function(self.w_out)
        w_rec = self._map_recurrent(function)
        return replace_blocks(self, w_in, w_rec, w_out, skip, leak=leak, agreement=agreement)

    def _map_recurrent(self, function: Callable[[Tensor], Tensor]) -> Tensor | LowRank:
        """Apply a function to the recurrent block, or to each of its factors."""
        if self.factors is not None:
            u, v, own = self.factors
            own = None if own is None else function(own.unsqueeze(-1)).squeeze(-1)
            return LowRank(function(u), function(v), own)
        return function(self.w_rec)

    def check_finite(self) -> Pathways:
        """Return self, or raise `NonFiniteError` naming the block that holds NaN or infinity."""
        parts = () if self.factors is None else zip(self.factors._fields, self.factors, strict=True)
        factors = {f"w_rec's {name}": part for name, part in parts}
        blocks = {"w_in": self.w_in, "w_rec": self._recurrent, "w_out": self.w_out, "w_skip": self.w_skip}
        for name, block in {**blocks, **factors}.items():
            if block is None:
                continue
            values = block.values() if block.layout == torch.sparse_csr else block
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise NonFiniteError(
                    f"{name} must be finite, but {bad} of its {values.numel()} entries are NaN or infinite; "
                    "check the training run or the file that the weights come from"
                )
        return self

    def rename(
        self,
        *,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        hidden_names: Sequence[str] | None = None,
    ) -> Pathways:
        """Return the same graph with other names; what is left out keeps its own.

        Parameters
        ----------
        input_names, output_names, hidden_names : sequence of str, optional
            I, O and H names.
        """
        given = {"input_names": input_names, "output_names": output_names, "hidden_names": hidden_names}
        return Pathways(
            self.w_in,
            self.w_rec if self.factors is None else self.factors,
            self.w_out,
            self.w_skip,
            **{**self._labels(), **{name: value for name, value in given.items() if value is not None}},
            leak=self.leak,
            steps=self.steps,
            agreement=self.agreement,
            provenance=self.provenance,
        )

    def _labels(self) -> dict[str, Any]:
        """Return names, modules and layers, as the constructor takes them."""
        return {name: getattr(self, name) for name in LABELS}

    def plot(self, horizon: int = 20) -> Any:
        """Draw the hop maps of the graph; see `hoplens.plots.plot_hops`.

        Parameters
        ----------
        horizon : int, default 20
            Time steps considered.

        Returns
        -------
        matplotlib.axes.Axes
        """
        maps = look_up("hoplens.analysis.hops:hop_maps")(self, horizon)
        return look_up("hoplens.plots.maps:plot_hops")(maps)

    def summary(self, horizon: int = 20) -> str:
        """Return what one network routes, in a few lines: those of `hoplens.analyze`.

        Parameters
        ----------
        horizon : int, default 20
            Time steps considered.
        """
        text: str = look_up("hoplens.analysis.analysing:analyze")(self, horizon=horizon).to_text()
        return text

    def adjacency(self) -> Tensor:
        """Return the whole graph's adjacency matrix in the graph convention.

        ``A[..., i, j]`` is the weight of the edge i -> j (the transpose of torch's orientation), nodes
        ordered inputs, hidden units, outputs. ``A^k`` sums the weights of all walks of exactly k hops.

        Returns
        -------
        Tensor, shape (..., n, n) with n = I + H + O
        """
        i, h, o = self.n_inputs, self.n_hidden, self.n_outputs
        full = self.w_in.new_zeros(*self.batch_shape, i + h + o, i + h + o)
        w_rec = self.w_rec.to_dense() if self.is_sparse else self.w_rec
        full[..., :i, i : i + h] = self.w_in.mT
        full[..., i : i + h, i : i + h] = w_rec.mT
        full[..., i : i + h, i + h :] = self.w_out.mT
        if self.w_skip is not None:
            full[..., :i, i + h :] = self.w_skip.mT
        return full

    def to_networkx(self) -> nx.DiGraph[Any]:
        """Return one network as a ``networkx.DiGraph`` with edge attribute ``weight``.

        Nodes are the input names, the hidden names and the output names; node attribute ``kind`` is
        ``input``, ``hidden`` or ``output``. Where a name would occur twice, inputs and outputs are called
        ``in:NAME`` and ``out:NAME``. Zero weights make no edge.
        """
        import networkx as nx

        if self.batch_shape:
            raise ShapeError(f"to_networkx needs one network, got leading axes {tuple(self.batch_shape)}")
        inputs, outputs = list(self.input_names), list(self.output_names)
        hidden = list(self.hidden_names)
        if len({*inputs, *hidden, *outputs}) < len(inputs) + len(hidden) + len(outputs):
            # e.g. a node that was attached a terminal: networkx would merge the two
            inputs, outputs = [f"in:{name}" for name in inputs], [f"out:{name}" for name in outputs]
        graph: nx.DiGraph[Any] = nx.DiGraph()
        for kind, names in (("input", inputs), ("hidden", hidden), ("output", outputs)):
            graph.add_nodes_from(names, kind=kind)
        nodes = [*inputs, *hidden, *outputs]
        matrix = self.adjacency().detach().cpu().numpy()
        for i, j in zip(*np.nonzero(matrix), strict=True):
            graph.add_edge(nodes[i], nodes[j], weight=float(matrix[i, j]))
        return graph


def replace_blocks(
    net: Pathways,
    w_in: Tensor,
    w_rec: Tensor | LowRank,
    w_out: Tensor,
    w_skip: Tensor | None,
    *,
    leak: Leak | None,
    agreement: Agreement | None = None,
    provenance: str | None = None,
) -> Pathways:
    """Return ``net`` with other weights and the same names and modules; provenance too, unless given.

    What of the new ``w_rec`` is leak must be said: it is scaled and cut as the weights are. How well other
    weights agree with data is not known, unless it is given.
    """
    return Pathways(
        w_in,
        w_rec,
        w_out,
        w_skip,
        **net._labels(),
        leak=leak,
        steps=net.steps and w_in.dim() == 3,
        agreement=agreement,
        provenance=net.provenance if provenance is None else provenance,
    )
