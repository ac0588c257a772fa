"""What all cells of PyTorch share: gates times hidden weights, and biases folded where that is exact."""

from __future__ import annotations

import torch
from torch import Tensor

from hoplens.errors import ShapeError
from hoplens.models.cells.base import Cell
from hoplens.models.tensors import check_weight


class WeightCell(Cell):
    """A cell of PyTorch: gates times hidden weights, biases folded where that is exact."""

    gates = 1

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
        *,
        label: str,
        projected: bool = False,
    ) -> None:
        check_weight(f"weight_ih of the {label}", w_ih)
        check_weight(f"weight_hh of the {label}", w_hh)
        rows = w_ih.shape[0] if w_ih.dim() == 2 else 0
        hidden = rows // self.gates
        shown = w_hh.shape[-1] if projected else hidden
        if not rows or rows % self.gates or w_hh.shape != (rows, shown) or 0 in (w_ih.shape[1], shown):
            width = "P" if projected else "H"
            raise ShapeError(
                f"{label} needs weights ({self.gates} H, I) and ({self.gates} H, {width}), "
                f"none of these sizes 0, got {tuple(w_ih.shape)} and {tuple(w_hh.shape)}"
            )
        for name, bias in (("bias_ih", b_ih), ("bias_hh", b_hh)):
            if bias is not None:
                check_weight(f"{name} of the {label}", bias, (rows,))
        self.check_one_kind(label, [block for block in (w_ih, w_hh, b_ih, b_hh) if block is not None])
        super().__init__(w_ih.shape[1], hidden, label=label)
        self.hidden = hidden
        self.w_ih, self.w_hh = w_ih, w_hh
        self.b_ih = w_ih.new_zeros(w_ih.shape[0]) if b_ih is None else b_ih
        self.b_hh = w_ih.new_zeros(w_ih.shape[0]) if b_hh is None else b_hh

    @staticmethod
    def check_one_kind(label: str, blocks: list[Tensor]) -> None:
        kinds = {(block.dtype, block.device) for block in blocks}
        if len(kinds) > 1:
            came = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ShapeError(f"all weights of a {label} must have one dtype and device, got {came}")

    def moved(self, target: torch.dtype | torch.device) -> list[Tensor]:
        return [block.to(target) for block in (self.w_ih, self.w_hh, self.b_ih, self.b_hh)]


__all__ = ["WeightCell"]
