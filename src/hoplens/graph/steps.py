"""One hop of a network as an operator on thin blocks, dense or sparse; what all hop kernels are made of.

A block holds what c terminal nodes (inputs or outputs, whichever are fewer) reach among the H hidden
units. Seen from the outputs a hop multiplies rows by W_rec; seen from the inputs it multiplies the
transposed columns by W_rec^T: the reversed graph has the transposed maps. A *run* holds the blocks of
consecutive hops.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FOLD_BYTES = 1 << 20  # a matrix up to this size is copied to take in a factor, which saves time a hop

Grads = tuple[Tensor | None, Tensor | None, Tensor | None]


class DenseStep:
    """E dense networks. Blocks have shape (E, c, H); a run is one tensor (n, E, c, H)."""

    def __init__(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, *, from_inputs: bool) -> None:
        self.shapes = w_in.shape, w_rec.shape, w_out.shape
        w_in, w_rec, w_out = (_stacked(w) for w in (w_in, w_rec, w_out))
        self.from_inputs = from_inputs
        self.start, self.step, self.other = (
            (w_in.mT, w_rec.mT, w_out.mT) if from_inputs else (w_out, w_rec, w_in)
        )
        self.back = self.step.mT
        # the gradient by w_rec lies in memory as w_rec does, so that adding it to others is fast
        self.turned = w_rec.stride(-1) != 1 and w_rec.stride(-2) == 1
        self.block_bytes = self.start.numel() * self.start.element_size()
        self.rec_bytes = self.step.numel() * self.start.element_size()

    def new_rec(self) -> Tensor:
        """Return zeros for the gradient by ``w_rec``."""
        return self.step.new_zeros(self.step.shape)

    def fold(self, factor: float) -> float:
        """Take a factor on every hop into the operator, where that is cheap; return what is left of it."""
        if self.rec_bytes > FOLD_BYTES:
            return factor
        self.step = self.step * factor
        self.back = self.step.mT
        return 1.0

    def first(self) -> Tensor:
        """Return the block of hop number 0, which must not be written to."""
        return self.start

    def advance_all(self, views: list[Tensor], factor: float) -> None:
        """Fill the blocks of a run from its first one."""
        # the hot loop of small networks, where a call costs more than its arithmetic
        step, block = self.step, views[0]
        for out in views[1:]:
            if factor == 1.0:
                torch.bmm(block, step, out=out)
            else:
                out.baddbmm_(block, step, beta=0, alpha=factor)
            block = out

    def retreat_all(self, views: list[Tensor], factor: float) -> None:
        """Add to each adjoint of a run the ones after it."""
        back, adjoint = self.back, views[-1]
        for out in views[-2::-1]:
            out.baddbmm_(adjoint, back, alpha=factor)
            adjoint = out

    def new_run(self, count: int, first: Tensor) -> Any:
        """Return room for the blocks of ``count`` hops, the first of them filled."""
        # hop first: every hop then writes one contiguous block, which bmm(out=) needs to be fast
        run = first.new_empty(count, *first.shape)
        run[0].copy_(first)
        return run

    def views(self, run: Tensor) -> list[Tensor]:
        """Return the blocks of a run, to be written to."""
        return list(run.unbind(0))

    def advance(self, block: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
        """Return ``factor * block`` one hop on."""
        if factor == 1.0:
            return torch.bmm(block, self.step) if out is None else torch.bmm(block, self.step, out=out)
        if out is None:
            out = torch.empty(block.shape, dtype=block.dtype, device=block.device)
        return out.baddbmm_(block, self.step, beta=0, alpha=factor)

    def retreat(self, adjoint: Tensor, factor: float, into: Tensor) -> None:
        """Add ``factor * adjoint`` one hop back to ``into``, in place."""
        into.baddbmm_(adjoint, self.back, alpha=factor)

    def contract(self, run: Tensor) -> Tensor:
        """Return the hop maps of a run as seen from the chosen side, shape (E, n, c, d)."""
        flat = _by_network(run)
        return torch.bmm(flat, self.other).view(
            flat.shape[0], run.shape[0], run.shape[2], self.other.shape[-1]
        )

    def spread(self, grad: Tensor) -> Any:
        """Return a run of adjoints for gradients (E, n, c, d) of the maps of a run."""
        e, n, c, _ = grad.shape
        adjoint = torch.bmm(grad.flatten(1, 2), self.other.mT)
        return adjoint.view(e, n, c, adjoint.shape[-1]).transpose(0, 1).contiguous()

    def collect(self, run: Tensor, grad: Tensor, total: Tensor | None) -> Tensor:
        """Add to ``total`` the gradient by the block of the other side."""
        flat, seen = _by_network(run), grad.flatten(1, 2)
        if total is None:
            return torch.bmm(flat.mT, seen)
        return total.baddbmm_(flat.mT, seen)

    def pair(self, run: Tensor, adjoints: Any, factor: float, total: Tensor | None) -> Tensor:
        """Add to ``total`` the gradient by ``w_rec`` of blocks and the adjoints one hop on."""
        # adjoints are neighbours in one buffer wherever they come from one spread; no copy then
        later = _by_network(torch.stack(adjoints) if isinstance(adjoints, list) else adjoints)
        now = _by_network(run[: len(adjoints)])
        left, right = (later, now) if self.from_inputs != self.turned else (now, later)
        if total is None:
            total = left.new_empty(self.step.shape)
            return total.baddbmm_(left.mT, right, beta=0, alpha=factor)
        return total.baddbmm_(left.mT, right, alpha=factor)

    def finish(self, first: Tensor, rec: Tensor | None, other: Tensor | None) -> Grads:
        """Return the gradients of w_in, w_rec, w_out from those of first block, w_rec and other side."""
        ends = (first.mT, None if other is None else other.mT) if self.from_inputs else (other, first)
        found = (ends[0], rec.mT if rec is not None and self.turned else rec, ends[1])
        return tuple(  # type: ignore[return-value]
            None if grad is None else grad[0] if len(shape) == 2 else grad.reshape(shape)
            for grad, shape in zip(found, self.shapes, strict=True)
        )


def _stacked(block: Tensor) -> Tensor:
    """Return a block with exactly one leading axis."""
    if block.dim() == 2:
        return block[None]
    return block if block.dim() == 3 else block.reshape(math.prod(block.shape[:-2]), *block.shape[-2:])


def _by_network(run: Tensor) -> Tensor:
    """Return (n, E, c, H) as (E, n * c, H); a view for one network."""
    n, e, c, h = run.shape
    return run.view(1, n * c, h) if e == 1 else run.transpose(0, 1).reshape(e, n * c, h)


class SparseStep:
    """One network with a CSR ``w_rec``, and what `DenseStep` says of each method.

    Blocks have shape (H, c), so that a hop reads whole lines; a run is a list of them.
    """

    def __init__(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor, *, from_inputs: bool) -> None:
        self.from_inputs = from_inputs
        self.pattern = w_rec
        self.shapes = w_in.shape, w_rec.shape, w_out.shape
        self._forward: Tensor | None = None
        self._backward: Tensor | None = None
        self.start = (w_in if from_inputs else w_out.mT).contiguous()  # (H, c)
        self.other = (w_out if from_inputs else w_in.mT).contiguous()  # (d, H)
        self.block_bytes = self.start.numel() * self.start.element_size()
        self.rec_bytes = w_rec.values().numel() * self.start.element_size()

    def new_rec(self) -> Tensor:
        return torch.zeros_like(self.pattern.values())

    @property
    def step(self) -> Tensor:
        if self._forward is None:
            self._forward = narrow_csr(self.pattern) if self.from_inputs else transpose_csr(self.pattern)
        return self._forward

    @property
    def back(self) -> Tensor:
        if self._backward is None:
            self._backward = transpose_csr(self.pattern) if self.from_inputs else narrow_csr(self.pattern)
        return self._backward

    def fold(self, factor: float) -> float:
        return factor

    def first(self) -> Tensor:
        return self.start

    def advance_all(self, views: list[Tensor], factor: float) -> None:
        for n in range(1, len(views)):
            self.advance(views[n - 1], factor, views[n])

    def retreat_all(self, views: list[Tensor], factor: float) -> None:
        for n in range(len(views) - 2, -1, -1):
            self.retreat(views[n + 1], factor, views[n])

    def new_run(self, count: int, first: Tensor) -> Any:
        return [first, *(torch.empty_like(first) for _ in range(count - 1))]

    def views(self, run: list[Tensor]) -> list[Tensor]:
        return run

    def advance(self, block: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
        if out is None:
            out = torch.empty(block.shape, dtype=block.dtype, device=block.device)
        torch.addmm(out, self.step, block, beta=0, alpha=factor, out=out)
        return out

    def retreat(self, adjoint: Tensor, factor: float, into: Tensor) -> None:
        torch.addmm(into, self.back, adjoint, alpha=factor, out=into)

    def contract(self, run: Sequence[Tensor]) -> Tensor:
        return torch.stack([(self.other @ block).mT for block in run])[None]

    def spread(self, grad: Tensor) -> Any:
        columns = self.other.mT
        return [columns @ g.mT for g in grad[0]]

    def collect(self, run: Sequence[Tensor], grad: Tensor, total: Tensor | None) -> Tensor:
        for block, g in zip(run, grad[0], strict=True):
            found = g.mT @ block.mT  # (d, H)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total

    def pair(
        self, run: Sequence[Tensor], adjoints: Sequence[Tensor], factor: float, total: Tensor | None
    ) -> Tensor:
        pattern = narrow_csr(self.pattern)
        if total is None:
            total = self.new_rec()
        for block, adjoint in zip(run, adjoints, strict=False):
            left, right = (adjoint, block) if self.from_inputs else (block, adjoint)
            sampled = torch.sparse.sampled_addmm(pattern, left, right.mT, beta=0.0, alpha=factor)
            total.add_(sampled.values())
        return total

    def finish(self, first: Tensor, rec: Tensor | None, other: Tensor | None) -> Grads:
        if rec is not None:
            rec = csr(self.pattern.crow_indices(), self.pattern.col_indices(), rec, self.pattern.shape)
        if self.from_inputs:
            return first, rec, other
        return None if other is None else other.mT, rec, first.mT


Step = DenseStep | SparseStep


def csr(crow: Tensor, col: Tensor, values: Tensor, shape: Any) -> Tensor:
    """Build a CSR tensor from parts known to be valid, without PyTorch's one-off notice that CSR is new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, size=tuple(shape), check_invariants=False)


def narrow_csr(matrix: Tensor) -> Tensor:
    """Return the matrix with 32-bit indices where they suffice: a tenth less to read a product."""
    crow = matrix.crow_indices()
    largest = max(int(crow[-1]), *matrix.shape)
    if crow.dtype == torch.int32 or largest >= 2**31:
        return matrix.detach()
    return csr(crow.int(), matrix.col_indices().int(), matrix.values().detach(), matrix.shape)


def transpose_csr(matrix: Tensor) -> Tensor:
    """Return the transpose in CSR, by a counting sort (SciPy's on the CPU: ten times PyTorch's speed)."""
    if matrix.device.type != "cpu":
        return matrix.detach().transpose(0, 1).to_sparse_csr()
    import scipy.sparse

    values, col, crow = (
        part.detach().numpy() for part in (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    )
    rows, columns = matrix.shape
    found: Any = scipy.sparse.csr_matrix((values, col, crow), shape=(rows, columns)).T.tocsr()
    indptr, indices, data = (torch.from_numpy(part) for part in (found.indptr, found.indices, found.data))
    return csr(indptr, indices, data, (columns, rows))
