"""The central value: a recurrent network as a weighted directed graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import NonFiniteError, ShapeError

if TYPE_CHECKING:
    import networkx as nx

RAW_WEIGHTS = "raw weights"


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
    w_rec : Tensor, array or SciPy sparse matrix, shape (..., H, H)
        Edges between hidden units. A sparse matrix (SciPy, or torch CSR) has no leading axes and stays
        sparse.
    w_out : Tensor or array, shape (..., O, H)
        Edges from hidden units to outputs.
    w_skip : Tensor or array, shape (..., O, I), optional
        Edges straight from inputs to outputs (walks of one hop).
    input_names, output_names : sequence of str, optional
        Names of the I inputs and O outputs; default ``x0, x1, ...`` and ``y0, y1, ...``.
    input_modules, output_modules : sequence of str, optional
        The module that each input and output belongs to, used to order and aggregate.
    provenance : str
        Where the weights come from: raw weights, or a Jacobian and the point it was taken at.

    Raises
    ------
    ShapeError
        If shapes, dtypes or devices do not fit together.
    """

    w_in: Tensor
    w_rec: Tensor
    w_out: Tensor
    w_skip: Tensor | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_modules: tuple[str, ...] | None
    output_modules: tuple[str, ...] | None
    provenance: str

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
        provenance: str = RAW_WEIGHTS,
    ) -> None:
        blocks = {"w_in": as_tensor(w_in), "w_rec": as_tensor(w_rec), "w_out": as_tensor(w_out)}
        if w_skip is not None:
            blocks["w_skip"] = as_tensor(w_skip)
        blocks = _common_dtype(blocks)
        _check_blocks(blocks)
        n_inputs, n_outputs = blocks["w_in"].shape[-1], blocks["w_out"].shape[-2]
        values: dict[str, Any] = {
            **blocks,
            "w_skip": blocks.get("w_skip"),
            "input_names": _labels("input_names", input_names, n_inputs, "x"),
            "output_names": _labels("output_names", output_names, n_outputs, "y"),
            "input_modules": _labels("input_modules", input_modules, n_inputs, None),
            "output_modules": _labels("output_modules", output_modules, n_outputs, None),
            "provenance": provenance,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

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
        return self.w_rec.layout != torch.strided

    def __repr__(self) -> str:
        batch = f", batch={tuple(self.batch_shape)}" if self.batch_shape else ""
        kind = "sparse" if self.is_sparse else "dense"
        return (
            f"Pathways({self.n_inputs} inputs -> {self.n_hidden} hidden ({kind}) -> {self.n_outputs} outputs"
            f"{batch}, {str(self.w_in.dtype).removeprefix('torch.')}, {self.w_in.device}, {self.provenance})"
        )

    def __getitem__(self, index: Any) -> Pathways:
        """Select along the leading axes: one network of an ensemble, or a slice of it."""
        if not self.batch_shape:
            raise ShapeError("this Pathways holds one network and has no leading axis to index")
        skip = None if self.w_skip is None else select_networks(self.w_skip, index, 2)
        w_in, w_rec, w_out = (select_networks(w, index, 2) for w in (self.w_in, self.w_rec, self.w_out))
        return replace_blocks(self, w_in, w_rec, w_out, skip)

    def to(self, target: torch.device | torch.dtype | str) -> Pathways:
        """Return the same graph on another device or in another dtype.

        Parameters
        ----------
        target : torch.device, torch.dtype or str
            The device, its name (``"cuda"``), or the dtype.
        """
        skip = None if self.w_skip is None else self.w_skip.to(target)
        return replace_blocks(self, self.w_in.to(target), self.w_rec.to(target), self.w_out.to(target), skip)

    def detach(self) -> Pathways:
        """Return the same graph cut from autograd."""
        skip = None if self.w_skip is None else self.w_skip.detach()
        return replace_blocks(self, self.w_in.detach(), self.w_rec.detach(), self.w_out.detach(), skip)

    def check_finite(self) -> Pathways:
        """Return self, or raise `NonFiniteError` naming the block that holds NaN or infinity."""
        for name in ("w_in", "w_rec", "w_out", "w_skip"):
            block = getattr(self, name)
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

        Nodes are the input names, ``h0, h1, ...`` and the output names; node attribute ``kind`` is
        ``input``, ``hidden`` or ``output``. Where a name would occur twice, inputs and outputs are called
        ``in:NAME`` and ``out:NAME``. Zero weights make no edge.
        """
        import networkx as nx

        if self.batch_shape:
            raise ShapeError(f"to_networkx needs one network, got leading axes {tuple(self.batch_shape)}")
        hidden = [f"h{j}" for j in range(self.n_hidden)]
        inputs, outputs = list(self.input_names), list(self.output_names)
        if len({*inputs, *hidden, *outputs}) < len(inputs) + len(hidden) + len(outputs):
            # e.g. a node that was attached both an input and an output terminal
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
    net: Pathways, w_in: Tensor, w_rec: Tensor, w_out: Tensor, w_skip: Tensor | None
) -> Pathways:
    """Return ``net`` with other weights and the same names, modules and provenance."""
    return Pathways(
        w_in,
        w_rec,
        w_out,
        w_skip,
        input_names=net.input_names,
        output_names=net.output_names,
        input_modules=net.input_modules,
        output_modules=net.output_modules,
        provenance=net.provenance,
    )


def select_networks(block: Tensor, index: Any, own_axes: int) -> Tensor:
    """Index the leading axes of a block, and refuse an index that reaches into its last ``own_axes``."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is Ellipsis for part in parts):  # it would stand for the block's own axes too
        parts = (*parts, *[slice(None)] * own_axes)
    # the same index on the leading axes alone (no memory) says which shape they have afterwards
    leading = block.new_empty(()).expand(block.shape[:-own_axes])
    try:
        wanted = (*leading[index].shape, *block.shape[-own_axes:])
    except IndexError:
        if isinstance(index, int):  # what ends an iteration over networks
            raise
        wanted = None
    selected = None if wanted is None else block[parts]
    if selected is None or selected.shape != wanted:
        raise ShapeError(
            f"an index must stay within the leading axes {tuple(leading.shape)}, one a network; got {index!r}"
        )
    return selected


def as_tensor(block: Any) -> Tensor:
    """Turn a tensor, array, nested list or SciPy sparse matrix into a floating-point tensor."""
    try:
        if isinstance(block, Tensor):
            tensor = block if block.layout in (torch.strided, torch.sparse_csr) else _to_csr(block)
        elif hasattr(block, "tocsr"):
            tensor = _from_scipy(block)
        else:
            tensor = torch.as_tensor(np.array(block))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"weights must be a numeric array, got {type(block).__name__} ({error})") from None
    if tensor.layout != torch.strided and tensor.dim() != 2:
        raise ShapeError(
            f"a sparse matrix must have two axes, got shape {tuple(tensor.shape)}; make it dense"
        )
    if tensor.is_complex():
        raise ShapeError(f"weights must be real, got dtype {tensor.dtype}")
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    return tensor


def _to_csr(block: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch announces once a process that its CSR layout is in beta; the products used here are tested
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return block.to_sparse_csr()


def _from_scipy(block: Any) -> Tensor:
    csr = block.tocsr(copy=True)
    csr.sum_duplicates()  # sorts too: torch takes neither duplicate nor unsorted columns
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.as_tensor(np.asarray(csr.indptr, dtype=np.int64)),
            torch.as_tensor(np.asarray(csr.indices, dtype=np.int64)),
            torch.as_tensor(csr.data),
            size=csr.shape,
            check_invariants=True,
        )


def _common_dtype(blocks: dict[str, Tensor]) -> dict[str, Tensor]:
    # Promote rather than refuse: a float32 w_in with a float64 w_rec loses nothing in float64.
    dtype = blocks["w_in"].dtype
    for block in blocks.values():
        dtype = torch.promote_types(dtype, block.dtype)
    if "w_rec" in blocks and blocks["w_rec"].layout != torch.strided:
        # Only the recurrent block is worth keeping sparse: the others are thin.
        blocks = {
            k: b if k == "w_rec" or b.layout == torch.strided else b.to_dense() for k, b in blocks.items()
        }
    else:
        blocks = {k: b if b.layout == torch.strided else b.to_dense() for k, b in blocks.items()}
    return {k: b if b.dtype == dtype else b.to(dtype) for k, b in blocks.items()}


def _check_blocks(blocks: dict[str, Tensor]) -> None:
    shapes = ", ".join(f"{name} {tuple(b.shape)}" for name, b in blocks.items())
    for name, block in blocks.items():
        if block.dim() < 2:
            raise ShapeError(
                f"{name} must have at least two axes (..., to, from), got shape {tuple(block.shape)}"
            )
    w_in, w_rec, w_out = blocks["w_in"], blocks["w_rec"], blocks["w_out"]
    hidden = w_rec.shape[-1]
    # w_rec first: H is taken from it, so if it is not square the others are not to blame
    wanted = {"w_rec": (hidden, hidden), "w_in": (hidden, w_in.shape[-1]), "w_out": (w_out.shape[-2], hidden)}
    if "w_skip" in blocks:
        wanted["w_skip"] = (w_out.shape[-2], w_in.shape[-1])
    for name, shape in wanted.items():
        if tuple(blocks[name].shape[-2:]) != shape:
            raise ShapeError(
                f"expected w_in (..., H, I), w_rec (..., H, H), w_out (..., O, H), w_skip (..., O, I) with "
                f"H = {hidden} taken from w_rec, so {name} should end in {shape}; got {shapes}"
            )
    if 0 in (hidden, w_in.shape[-1], w_out.shape[-2]):
        raise ShapeError(f"a network needs at least one input, hidden unit and output; got {shapes}")
    if any(b.shape[:-2] != w_in.shape[:-2] for b in blocks.values()):
        raise ShapeError(f"all blocks need the same leading axes; got {shapes}")
    devices = {str(b.device) for b in blocks.values()}
    if len(devices) > 1:
        raise ShapeError(
            f"all blocks must be on one device, got {', '.join(sorted(devices))}; move them first"
        )


def _labels(
    field: str, given: Sequence[str] | None, count: int, prefix: str | None
) -> tuple[str, ...] | None:
    if given is None:
        return None if prefix is None else tuple(f"{prefix}{j}" for j in range(count))
    labels = tuple(str(label) for label in given)
    if len(labels) != count:
        raise ShapeError(f"{field} must hold {count} names, one a node, got {len(labels)}")
    if prefix is not None and len(set(labels)) != count:
        raise ShapeError(f"{field} must be distinct, got {', '.join(labels[:8])}")
    return labels


__all__ = ["RAW_WEIGHTS", "Pathways", "as_tensor", "replace_blocks"]
