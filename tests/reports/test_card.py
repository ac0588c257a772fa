"""The card's code runs the files as the model ran, whatever its cell."""

from __future__ import annotations

import pytest
import torch
from model_kinds import CORES, HEAD, H, I, O
from torch import nn

import hoplens as hl
from hoplens.reports.compression import _blocks


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", CORES)
def test_the_code_of_the_card_runs_every_core(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = hl.RecurrentModel(CORES[name](), nn.Linear(HEAD.get(name, H), O)).eval()
    torch.save(dict(model.state_dict()), "model.pt")
    space = {"inputs": torch.randn(3, 6, I)}
    exec(_blocks(model)[0]["code"], space)
    torch.testing.assert_close(space["outputs"], model(space["inputs"]))
