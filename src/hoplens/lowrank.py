"""Networks whose recurrent matrix is a diagonal plus a matrix of low rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoplens.errors import NonFiniteError, ShapeError
from hoplens.pathways import Pathways, as_tensor


@dataclass(frozen=True, eq=False, init=False)
class LowRankPathways:
    """A network with ``W_rec = diag(diagonal) + left @ right.T``, never formed.

    Parameters
    ----------
    w_in : Tensor or array, shape (H, I)
        Edges from inputs to hidden units.
    diagonal : Tensor or array, shape (H,)
        Self-loops besides those of the low-rank part.
    left, right : Tensor or array, shape (H, R)
        Factors; entry (i, j) of ``left @ right.T`` is the edge j -> i.
    w_out : Tensor or array, shape (O, H)
        Edges from hidden units to outputs.

    Raises
    ------
    ShapeError
        If shapes do not fit together.
    """

    w_in: Tensor
    diagonal: Tensor
    left: Tensor
    right: Tensor
    w_out: Tensor

    def __init__(self, w_in: Any, diagonal: Any, left: Any, right: Any, w_out: Any) -> None:
        blocks = {
            name: as_tensor(block)
            for name, block in (
                ("w_in", w_in),
                ("diagonal", diagonal),
                ("left", left),
                ("right", right),
                ("w_out", w_out),
            )
        }
        shapes = {name: tuple(block.shape) for name, block in blocks.items()}
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        if len(shapes["diagonal"]) != 1 or any(len(s) != 2 for n, s in shapes.items() if n != "diagonal"):
            raise ShapeError(
                f"expected w_in (H, I), diagonal (H,), left and right (H, R), w_out (O, H); got {given}"
            )
        h, r = shapes["diagonal"][0], shapes["left"][1]
        wanted = {
            "w_in": (h, shapes["w_in"][1]),
            "left": (h, r),
            "right": (h, r),
            "w_out": (shapes["w_out"][0], h),
        }
        for name, shape in wanted.items():
            if shapes[name] != shape:
                raise ShapeError(f"expected {name} of shape {shape} for H = {h} and R = {r}; got {given}")
        dtype = blocks["w_in"].dtype
        for block in blocks.values():
            dtype = torch.promote_types(dtype, block.dtype)
        for name, block in blocks.items():
            object.__setattr__(self, name, block.to(dtype))

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.w_in.shape[1]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units, H."""
        return self.w_in.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.w_out.shape[0]

    @property
    def batch_shape(self) -> torch.Size:
        """No leading axes: ``torch.Size([])``."""
        return torch.Size(())

    def __repr__(self) -> str:
        return (
            f"LowRankPathways({self.n_inputs} inputs -> {self.n_hidden} hidden "
            f"(diagonal + rank {self.left.shape[1]}) -> {self.n_outputs} outputs)"
        )

    def to_pathways(self) -> Pathways:
        """Return the same network with ``W_rec`` formed, shape (H, H); differentiable."""
        return Pathways(self.w_in, torch.diag(self.diagonal) + self.left @ self.right.mT, self.w_out)

    def product(self) -> Callable[[Any], Any]:
        """Return the function x -> ``W_rec x`` on float64 NumPy vectors (H,)."""
        d, u, v = (t.detach().double().cpu().numpy() for t in (self.diagonal, self.left, self.right))
        return lambda x: d * x + u @ (v.T @ x)

    def check_finite(self) -> LowRankPathways:
        """Return self, or raise `NonFiniteError` naming the block that holds NaN or infinity."""
        for name in ("w_in", "diagonal", "left", "right", "w_out"):
            block = getattr(self, name)
            bad = int((~torch.isfinite(block)).sum())
            if bad:
                raise NonFiniteError(
                    f"{name} must be finite, but {bad} of its {block.numel()} entries are NaN or infinite; "
                    "check the file that the weights come from"
                )
        return self


__all__ = ["LowRankPathways"]
