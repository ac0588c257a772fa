"""Random ensembles of every cell, in float64."""

from __future__ import annotations

import pytest
import torch

from hoplens.models.cells import CELLS, make_cell
from hoplens.models.ensemble import Ensemble

each_cell = pytest.mark.parametrize("cell", CELLS)


def random_ensemble(cell, *, networks=3, hidden=5, inputs=2, outputs=4, seed=0, scale=0.7):
    """Draw a float64 ensemble, all weights and biases away from zero."""
    source = torch.Generator().manual_seed(seed)
    blocks = make_cell(cell).blocks

    def draw(*shape):
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    leak = 0.3 if cell == "leaky" else 1.0
    ensemble = Ensemble(
        draw(networks, hidden + inputs + 1, blocks * hidden),
        draw(networks, outputs, hidden),
        draw(networks, outputs, 1),
        cell,
        leak,
    )
    ensemble.weight.mul_(ensemble.structure())
    return ensemble


def draw_inputs(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
