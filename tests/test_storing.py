"""A graph comes back from its file as it was saved, whatever form its recurrent block has."""

from __future__ import annotations

import json

import pytest
import scipy.sparse
import torch
from safetensors.torch import save
from torch import nn
from twins import random_network

import hoplens as hl
from hoplens.graph.parts import LowRank
from hoplens.storing import KEY


def graphs():
    dense = random_network(skip=True)
    sparse = scipy.sparse.random(5, 5, 0.4, random_state=0)
    u = torch.randn(5, 2)
    return {
        "dense": dense,
        "ensemble": hl.Pathways(torch.randn(4, 5, 3), torch.randn(4, 5, 5), torch.randn(4, 2, 5)),
        "sparse": hl.Pathways(torch.randn(5, 3), sparse, torch.randn(2, 5), torch.randn(2, 3)),
        "low rank": hl.Pathways(torch.randn(5, 3), LowRank(u, u, torch.rand(5)), torch.randn(2, 5)),
        "steps": hl.read(
            nn.RNN(3, 5, batch_first=True), inputs=torch.randn(4, 6, 3), lengths=[6, 2, 3, 6], at="steps"
        ),
        "leaky": hl.read(hl.LeakyRNN(3, 5, 0.3), nn.Linear(5, 2)),
        "layers": hl.read(nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)),
        "named": hl.Pathways(torch.eye(2), torch.eye(2), torch.eye(2), input_modules=["a", "b"]).rename(
            input_names=["left", "right"]
        ),
    }


@pytest.mark.parametrize("name", graphs())
def test_a_graph_comes_back_as_it_was(name, tmp_path):
    net = graphs()[name].detach()
    back = hl.load(hl.save(net, tmp_path / "net.safetensors"))
    assert isinstance(back, hl.Pathways)
    assert repr(back) == repr(net)
    for block in ("w_in", "w_out", "w_skip", "w_rec"):
        one, other = getattr(net, block), getattr(back, block)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one.to_dense(), other.to_dense())
    for field in ("input_names", "input_modules", "hidden_names", "hidden_modules", "layers", "provenance"):
        assert getattr(back, field) == getattr(net, field)
    assert (back.factors is None, back.is_sparse) == (net.factors is None, net.is_sparse)
    assert (back.leak is None) == (net.leak is None)
    assert net.leak is None or torch.equal(back.leak.kept, net.leak.kept)
    assert (back.steps, back.agreement) == (net.steps, net.agreement)
    assert torch.equal(hl.hop_maps(back, 4).values, hl.hop_maps(net, 4).values)


def test_a_damaged_graph_is_refused_in_one_line(tmp_path):
    path = tmp_path / "net.safetensors"
    eye = torch.eye(2)
    whole = {"w_in": eye, "w_rec": eye.clone(), "w_out": eye.clone()}
    names = dict.fromkeys(("input_names", "output_names", "hidden_names"))
    modules = dict.fromkeys(("input_modules", "output_modules", "hidden_modules"))
    good = {"format": 1, **names, **modules, "layers": None, "provenance": "x"}
    csr = {"rows": torch.tensor([0, 1, 9]), "columns": torch.tensor([0, 1]), "weights": torch.ones(2)}
    for tensors, described, match in (
        (whole, good | {"format": 2}, "format 2, this version reads 1"),
        ({"w_in": eye}, good, "damaged"),
        (whole, good | {"input_names": ["one"]}, "damaged .input_names must hold 2 names"),
        (whole, good | {"layers": [["a", 0, 9]]}, "damaged .layers must cover"),
        ({"w_in": eye, "w_out": eye.clone(), **csr}, good, "damaged"),
        (whole, {}, "damaged"),
        (whole, [1], "damaged"),
    ):
        path.write_bytes(save(tensors, metadata={KEY: json.dumps(described)}))
        with pytest.raises(hl.errors.FileError, match=match) as error:
            hl.load(path)
        assert "\n" not in str(error.value)
