"""The parts that a `Pathways` is built from, and the checks on them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ShapeError


class LowRank(NamedTuple):
    """A recurrent matrix ``W = u v^T`` or ``u v^T + diag(diagonal)``, kept as its parts.

    Attributes
    ----------
    u, v : Tensor, shape (..., H, r)
        Factors.
    diagonal : Tensor, shape (..., H), optional
        What each unit keeps of itself besides.
    """

    u: Tensor
    v: Tensor
    diagonal: Tensor | None = None


class Leak(NamedTuple):
    """What leaky units keep of themselves: ``w_rec = diag(kept) + diag(gain) W``.

    The diagonal that a time constant makes is no wiring: null models leave it where it is and permute W.

    Attributes
    ----------
    kept : Tensor, shape (..., H)
        1 - a of each unit, with a = dt / tau.
    gain : Tensor, shape (..., H)
        a of each unit.
    """

    kept: Tensor
    gain: Tensor


class Layer(NamedTuple):
    """A run of hidden units that belong to one layer and direction of a stacked network.

    Attributes
    ----------
    name : str
        What the layer is called.
    start, stop : int
        Its units are ``start .. stop - 1``.
    level : int
        Its place in the stack, from 0.
    reverse : bool
        Whether it runs through reversed time (the backward direction of a bidirectional network).
    """

    name: str
    start: int
    stop: int
    level: int = 0
    reverse: bool = False


class Agreement(NamedTuple):
    """How well the maps of a static graph predict the exact mean maps along the data it was read on.

    Attributes
    ----------
    correlation : float
        Pearson correlation over all (lag, output, input) cells.
    explained : float
        ``1 - |exact - predicted|^2 / |exact|^2``; below 0 where predicting nothing would be closer.
    gain : float
        Factor, 0 or more, by which the prediction comes closest.
    """

    correlation: float
    explained: float
    gain: float

    def __str__(self) -> str:
        if not math.isfinite(self.explained):
            return "nothing flows along these inputs"
        share = f"{self.explained:.2f}" if self.explained > 0 else "none"
        return (
            f"correlation {self.correlation:.2f} with the exact maps, explains {share} (gain {self.gain:.2g})"
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


def checked_blocks(
    w_in: Any, w_rec: Any, w_out: Any, w_skip: Any
) -> tuple[dict[str, Tensor], LowRank | None]:
    """Return the checked blocks, and the factors in place of ``w_rec`` where it is low-rank."""
    skip = {} if w_skip is None else {"w_skip": as_tensor(w_skip)}
    if not isinstance(w_rec, LowRank):
        blocks = {"w_in": as_tensor(w_in), "w_rec": as_tensor(w_rec), "w_out": as_tensor(w_out), **skip}
        blocks = _common_dtype(blocks)
        _check_blocks(blocks)
        return blocks, None
    u, v = as_tensor(w_rec.u), as_tensor(w_rec.v)
    if u.dim() < 2 or u.shape != v.shape:
        raise ShapeError(
            f"LowRank(u, v) needs two factors of one shape (..., H, r), got {tuple(u.shape)} and "
            f"{tuple(v.shape)}"
        )
    given = {"w_in": as_tensor(w_in), "w_out": as_tensor(w_out), **skip, "u": u, "v": v}
    if w_rec.diagonal is not None:
        given["diagonal"] = as_tensor(w_rec.diagonal)
        if given["diagonal"].shape != u.shape[:-1]:
            raise ShapeError(
                f"LowRank's diagonal must have shape {tuple(u.shape[:-1])}, one a hidden unit, got "
                f"{tuple(given['diagonal'].shape)}"
            )
    blocks = _common_dtype(given)
    u, v, diagonal = blocks.pop("u"), blocks.pop("v"), blocks.pop("diagonal", None)
    # the shapes of the product, without the product: expand allocates nothing
    stand_in = u[..., :1].expand(*u.shape[:-1], u.shape[-2])
    _check_blocks({"w_in": blocks["w_in"], "w_rec": stand_in, **blocks})
    return blocks, LowRank(u, v, diagonal)


def check_layers(layers: Sequence[Layer] | None, hidden: int) -> tuple[Layer, ...] | None:
    """Return the layers, or raise unless they cover all hidden units level by level."""
    if layers is None:
        return None
    found = tuple(Layer(*layer) for layer in layers)
    levels = [layer.level for layer in found] or [-1]
    position = 0
    for layer in found:
        if layer.start != position or layer.stop <= layer.start:
            break
        position = layer.stop
    if position != hidden or levels != sorted(levels) or sorted(set(levels)) != list(range(levels[-1] + 1)):
        came = ", ".join(f"{a.name} {a.start}:{a.stop} level {a.level}" for a in found)
        raise ShapeError(
            f"layers must cover the {hidden} hidden units in order, level by level from 0, without gap or "
            f"overlap; got {came or 'none'}"
        )
    return found


def _common_dtype(blocks: dict[str, Tensor]) -> dict[str, Tensor]:
    # Promote rather than refuse: a float32 w_in with a float64 w_rec loses nothing in float64.
    dtype = blocks["w_in"].dtype
    if all(b.dtype == dtype and b.layout == torch.strided for b in blocks.values()):
        return blocks
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
    def shapes() -> str:  # only for messages: a training loop comes here every step
        return ", ".join(f"{name} {tuple(b.shape)}" for name, b in blocks.items())

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
        if blocks[name].shape[-2:] != shape:
            raise ShapeError(
                f"expected w_in (..., H, I), w_rec (..., H, H), w_out (..., O, H), w_skip (..., O, I) with "
                f"H = {hidden} taken from w_rec, so {name} should end in {shape}; got {shapes()}"
            )
    if 0 in (hidden, w_in.shape[-1], w_out.shape[-2]):
        raise ShapeError(f"a network needs at least one input, hidden unit and output; got {shapes()}")
    leading, device = w_in.shape[:-2], w_in.device
    if any(b.shape[:-2] != leading for b in blocks.values()):
        raise ShapeError(f"all blocks need the same leading axes; got {shapes()}")
    if any(b.device != device for b in blocks.values()):
        devices = sorted({str(b.device) for b in blocks.values()})
        raise ShapeError(f"all blocks must be on one device, got {', '.join(devices)}; move them first")


@lru_cache(maxsize=64)
def numbered(prefix: str, count: int) -> tuple[str, ...]:
    """Return the default names ``prefix0, prefix1, ...``; mostly the same tuple for the same arguments."""
    # a training loop reads its network every step
    return tuple(f"{prefix}{j}" for j in range(count))


def check_leak(leak: Leak | None, like: Tensor) -> Leak | None:
    if leak is None:
        return None
    wanted = like.shape[:-1]
    parts = []
    for name, part in zip(Leak._fields, leak, strict=True):
        value = torch.as_tensor(part).to(like)
        if value.dim() < 1 or value.shape[-1] != wanted[-1] or value.dim() > len(wanted):
            raise ShapeError(f"leak's {name} must have shape (..., H={wanted[-1]}), got {tuple(value.shape)}")
        parts.append(value.expand(wanted))
    return Leak(*parts)


def labels(field: str, given: Sequence[str] | None, count: int, prefix: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None if prefix is None else numbered(prefix, count)
    if prefix is not None and given is numbered(prefix, count):  # handed on by another Pathways
        return numbered(prefix, count)
    labels = tuple(str(label) for label in given)
    if len(labels) != count:
        raise ShapeError(f"{field} must hold {count} names, one a node, got {len(labels)}")
    if prefix is not None and len(set(labels)) != count:
        raise ShapeError(f"{field} must be distinct, got {', '.join(labels[:8])}")
    return labels
