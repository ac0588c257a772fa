"""Recurrent models of every kind that can be quantised, small and seeded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hoplens as hl


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cores():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            nn.RNN(3, 5, batch_first=True, nonlinearity="relu"),
            nn.RNN(3, 5, num_layers=2, batch_first=True, bias=False),
            hl.LeakyRNN(3, 5, 0.3),
            nn.GRU(3, 5, num_layers=2, batch_first=True, bidirectional=True),
            nn.LSTM(3, 5, batch_first=True),
            nn.LSTM(3, 5, num_layers=2, batch_first=True, proj_size=4, bidirectional=True),
        ]


def model_of(core, **info):
    width = (getattr(core, "proj_size", 0) or 5) * (2 if core.bidirectional else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return hl.RecurrentModel(copy.deepcopy(core), nn.Linear(width, 2), hl.ModelInfo(**info))


KINDS = pytest.mark.parametrize("core", cores(), ids=lambda core: str(core)[:60])
