"""Hand-written forward and backward of the thin products that all hop maps are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hoplens.graph.steps import DenseStep, Grads, SparseStep, Step

FLUSH_EVERY = 8  # hops between two looks for entries that are about to become denormal
FLUSH_BITS = 36  # entries below 2^36 times the smallest normal number count as zero
KEEP_BYTES = 1 << 28  # blocks of all hops are kept for the backward pass up to this size, or that of w_rec
SEGMENT_BYTES = 1 << 25  # blocks and adjoints up to this size are handled in one go
ADJOINT_ROWS = 1024  # rows of adjoints at hand at once: enough for a fast product, little memory


def thin_products(w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int, *, factor: float = 1.0) -> Tensor:
    """Return ``W_out (factor W_rec)^n W_in`` for n = 0 .. length - 1.

    Recurses from the side with fewer nodes, so that a hop costs ``min(I, O) * H^2`` multiplications (or
    ``min(I, O)`` times the edges). The backward pass keeps ``length * min(I, O) * H`` numbers, or about
    ``2 sqrt(length) * min(I, O) * H`` where that is much, never a matrix a hop. Half precision is computed
    in float32. First derivatives only. On CPUs entries below ``2^36`` times the smallest normal number
    (8e-28 in float32) are set to zero every few hops, so that denormals never slow the products down.

    ``w_in`` (..., H, I); ``w_rec`` (..., H, H), dense, or sparse CSR of shape (H, H); ``w_out`` (..., O, H).
    ``factor``: multiplies every recurrent hop. Returns (..., length, O, I).
    """
    dtype = w_in.dtype
    w_in, w_rec, w_out = (widen(w) for w in (w_in, w_rec, w_out))
    apply: Callable[..., Tensor] = _ThinProducts.apply
    values = apply(w_in, w_rec, w_out, length, factor)
    return values.reshape(*w_in.shape[:-2], *values.shape[-3:]).to(dtype)


def widen(block: Tensor) -> Tensor:
    """Return half precision as float32, anything else as it is."""
    return block.float() if block.dtype in (torch.float16, torch.bfloat16) else block


def make_step(w_in: Tensor, w_rec: Tensor, w_out: Tensor) -> Step:
    """Return the hop operator of a network, from the side with fewer nodes."""
    n_inputs, n_outputs = w_in.shape[-1], w_out.shape[-2]
    if w_rec.layout == torch.strided:
        return DenseStep(w_in, w_rec, w_out, from_inputs=n_inputs < n_outputs)
    # only the output side needs the transpose of a sparse matrix
    return SparseStep(w_in, w_rec, w_out, from_inputs=n_inputs <= n_outputs)


class Chain:
    """The recursion over hops, forwards and backwards, in segments."""

    def __init__(self, step: Step, length: int, factor: float = 1.0) -> None:
        self.step, self.length, self.factor = step, length, factor
        self.hop_factor = factor if factor == 1.0 else step.fold(factor)
        first = step.first()
        size = length * step.block_bytes
        self.keep_all = size <= max(KEEP_BYTES, step.rec_bytes)
        root = math.isqrt(length - 1) + 1
        rows = ADJOINT_ROWS // min(first.shape[-2:])
        if size <= SEGMENT_BYTES:
            self.segment = length
        else:
            self.segment = max(root, min(rows, length)) if self.keep_all else root
        self.kept: list[Any] = []
        self.scales: dict[int, Tensor | float] = {}  # what the block of a hop was multiplied with, if not 1
        tiny = torch.finfo(first.dtype).tiny
        self.floor = tiny * 2.0**FLUSH_BITS if first.device.type == "cpu" else 0.0

    def forward(self, *, keep: bool) -> Tensor:
        """Return the maps as seen from the step's side, (E, L, c, d); keep what `backward` needs."""
        maps, block = [], self.step.first()
        for begin in range(0, self.length, self.segment):
            count = min(self.segment, self.length - begin)
            if begin:
                block = self._hop(block, begin)
            if keep or isinstance(self.step, DenseStep):
                run = self._run(block, begin, count)
                block = run[-1]
                maps.append(self.step.contract(run))
                if keep:
                    self.kept.append(run if self.keep_all else run[0].clone())
            else:
                block = self._stream(block, begin, count, maps)
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)

    def backward(self, grad: Tensor, needs: tuple[bool, bool, bool]) -> Grads:
        """Return the gradients of w_in, w_rec, w_out for ``grad`` (E, L, c, d); ``needs`` says which."""
        step, rec, other = self.step, None, None
        needs_other = needs[2] if step.from_inputs else needs[0]
        later: Tensor | None = None  # adjoint of the first hop of the segment after this one
        for part in range(len(self.kept) - 1, -1, -1):
            begin = part * self.segment
            count = min(self.segment, self.length - begin)
            run = self.kept[part] if self.keep_all else self._run(self.kept[part], begin, count)
            seen = grad[:, begin : begin + count]
            if needs_other:
                other = step.collect(run, seen, other)
            adjoints = step.spread(seen)
            views = step.views(adjoints)
            if later is not None:
                self._back_hop(later, begin + count, views[-1])
            at = count - 1
            while at > 0:
                # a scaled or flushed adjoint takes a hop of its own, the ones before it go in one run
                self._back_hop(views[at], begin + at, views[at - 1])
                stop = max(0, self._stop_before(begin + at - 1) - begin)
                self.step.retreat_all(views[stop:at], self.hop_factor)
                at = stop
            if needs[1]:
                rec = self._pair(run, adjoints, later, begin, rec)
            later = views[0]
        assert later is not None
        if needs[1] and rec is None:  # one hop map only: W_rec plays no part
            rec = step.new_rec()
        return step.finish(later, rec, other)

    def _pair(
        self, run: Any, adjoints: Any, later: Tensor | None, begin: int, rec: Tensor | None
    ) -> Tensor | None:
        count = len(adjoints)
        if self.scales:  # adjoints belong to scaled blocks: bring each to the product before its scaling
            for n, view in enumerate(self.step.views(adjoints)):
                if n and begin + n in self.scales:
                    view.mul_(self.scales[begin + n])
            if later is not None and begin + count in self.scales:
                later = later * self.scales[begin + count]
        if count > 1:
            rec = self.step.pair(run, adjoints[1:], self.factor, rec)
        if later is not None:
            rec = self.step.pair(run[-1:], [later], self.factor, rec)
        return rec

    def _run(self, first: Tensor, begin: int, count: int) -> Any:
        run = self.step.new_run(count, first)
        views = self.step.views(run)
        at = 0
        while at < count - 1:
            stop = min(count - 1, self._next_stop(begin + at) - begin)
            self.step.advance_all(views[at : stop + 1], self.hop_factor)
            self._settle(views[stop], begin + stop)
            at = stop
        return run

    def _next_stop(self, n: int) -> int:
        """Return the first hop after n where a block may need to be settled."""
        return n + 1 if self.scales else (n // FLUSH_EVERY + 1) * FLUSH_EVERY

    def _stream(self, block: Tensor, begin: int, count: int, maps: list[Tensor]) -> Tensor:
        """Run hops without keeping their blocks; two blocks take turns."""
        step: Any = self.step  # a sparse one, of which a run is a list
        spare = torch.empty_like(block)
        maps.append(step.contract([block]))
        for n in range(begin + 1, begin + count):
            step.advance(block, self.hop_factor, spare)
            self._settle(spare, n)
            block, spare = spare, block if n > 1 else torch.empty_like(block)  # never write the first block
            maps.append(step.contract([block]))
        return block

    def _hop(self, block: Tensor, n: int) -> Tensor:
        block = self.step.advance(block, self.hop_factor)
        self._settle(block, n)
        return block

    def _stop_before(self, n: int) -> int:
        """Return the last hop up to n whose adjoint may need to be scaled or flushed."""
        return n if self.scales else n // FLUSH_EVERY * FLUSH_EVERY

    def _settle(self, block: Tensor, n: int) -> None:
        """Keep the entries of the n'th block inside the range where arithmetic is fast and exact."""
        if n in self.scales:
            block.mul_(self.scales[n])
        if n % FLUSH_EVERY == 0:
            self._flush(block)

    def _flush(self, block: Tensor) -> None:
        if self.floor:
            torch.ops.aten.hardshrink.out(block, self.floor, out=block)

    def _back_hop(self, adjoint: Tensor, n: int, into: Tensor) -> None:
        """Add the adjoint of block n to that of block n - 1."""
        if n % FLUSH_EVERY == 0:
            self._flush(adjoint)
        if n in self.scales:
            adjoint = adjoint * self.scales[n]
        self.step.retreat(adjoint, self.hop_factor, into)


class _ThinProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w_in: Tensor, w_rec: Tensor, w_out: Tensor, length: int, factor: float) -> Tensor:
        ctx.chain = Chain(make_step(w_in, w_rec, w_out), length, factor)
        ctx.save_for_backward(w_in, w_rec, w_out)  # lets PyTorch notice weights changed in place
        maps: Tensor = ctx.chain.forward(keep=any(ctx.needs_input_grad[:3]))
        return maps.mT if ctx.chain.step.from_inputs else maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.saved_tensors
        if ctx.chain.step.from_inputs:
            grad = grad.mT
        return *ctx.chain.backward(grad, ctx.needs_input_grad[:3]), None, None
