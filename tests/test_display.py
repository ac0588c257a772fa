"""What people see first of a result: short reprs, tables in notebooks, selections, pages in one call."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from torch import nn
from twins import random_network

import hoplens as hl
from hoplens.display import Shown


def results():
    rnn, head = nn.RNN(3, 5, batch_first=True), nn.Linear(5, 2)
    x = torch.randn(4, 6, 3)
    net = hl.read(rnn, head)
    flow = hl.trajectory_maps(rnn, x, readout=head)
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    return [
        hl.hop_maps(net, 4),
        hl.lag_maps(net, 4),
        hl.resolvent(net, damping=0.5),
        flow,
        hl.fidelity(net, flow),
        hl.explain(rnn, x, readout=head),
        hl.interactions(rnn, x, readout=head),
        hl.analyze(rnn, head, inputs=x),
        hl.train(task, "none", hidden=3, steps=3),
        (data := hl.data.cartpole(length=8, episodes=10)),
        data.test,
        hl.data.closed_loop_return(nn.RNN(2, 3, batch_first=True), data, readout=nn.Linear(3, 2), episodes=2),
    ]


def test_reprs_are_short_and_notebooks_show_them():
    for found in results():
        assert isinstance(found, Shown)
        text = repr(found)
        assert "tensor(" not in text
        assert text.count("\n") <= 2
        assert len(text) < 600, text
        assert type(found).__name__ in text
        page = found._repr_html_()
        assert page.startswith("<pre>")
        assert ("<table" in page) == hasattr(found, "to_dataframe")


def test_no_result_class_prints_its_tensors():
    for name in hl.__all__:
        value = getattr(hl, name)
        if dataclasses.is_dataclass(value) and isinstance(value, type):
            tensors = [f for f in dataclasses.fields(value) if "Tensor" in str(f.type) and f.repr]
            assert not tensors or not value.__dataclass_params__.repr or name == "Pathways", name


def test_maps_are_selected_by_number_and_name_and_keep_their_axes():
    net = random_network(3, batch=(2,)).rename(input_names=["a", "b", "c"][: random_network(3).n_inputs])
    maps = hl.hop_maps(net, 5)
    one = maps.sel(hop=3, input="a", output=0)
    assert one.values.shape == (2, 1, 1, 1)
    assert torch.equal(one.values[:, 0, 0, 0], maps.values[:, 1, 0, 0])
    assert (one.input_names, one.hops.tolist()) == (("a",), [3])
    assert torch.equal(maps.sel(lag=[0, 2]).values, maps.values[:, [0, 2]])
    assert torch.equal(maps.sel().values, maps.values)
    with pytest.raises(hl.errors.UnknownNameError, match="unknown input 'z'"):
        maps.sel(input="z")
    with pytest.raises(hl.errors.ParameterError, match=r"there is no hop 9; there are 5: 2 \.\. 6"):
        maps.sel(hop=9)
    with pytest.raises(hl.errors.ParameterError, match="one of hop= and lag="):
        maps.sel(hop=2, lag=0)


def test_maps_become_xarray(monkeypatch):
    xarray = pytest.importorskip("xarray")
    maps = hl.hop_maps(random_network(3, batch=(2,)), 4)
    array = maps.to_xarray()
    assert isinstance(array, xarray.DataArray)
    assert array.dims == ("network", "hop", "output", "input")
    assert float(array.sel(hop=3, output="y0", input="x0")[1]) == float(maps.values[1, 1, 0, 0])
    assert array["lag"].values.tolist() == [0, 1, 2, 3]
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(hl.errors.ParameterError, match=r"hoplens\[xarray\]"):
        maps.to_xarray()


def test_a_graph_is_renamed_drawn_and_told():
    net = random_network(3)
    names = [f"in {j}" for j in range(net.n_inputs)]
    other = net.rename(input_names=names)
    assert other.input_names == tuple(names)
    assert other.output_names == net.output_names
    assert torch.equal(other.w_rec, net.w_rec)
    assert net.plot(4).get_ylabel() == "hop (lag)"
    assert other.summary(4).startswith(f"{net.n_inputs} inputs")
    with pytest.raises(hl.errors.ShapeError, match="input_names"):
        net.rename(input_names=["a"] * 7)


def test_a_page_of_anything_in_one_call(tmp_path):
    rnn, head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)
    x = torch.randn(4, 6, 3)
    model = hl.RecurrentModel(rnn, head)
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    result = hl.train(task, "none", seeds=2, hidden=3, steps=3)
    for n, (given, options) in enumerate(
        [
            (model, {"inputs": x, "title": "a GRU"}),
            (hl.read(rnn, head), {"horizon": 4}),
            (hl.analyze(model, inputs=x), {}),
            (hl.prune(model, 0.5), {"inputs": x}),
            (result, {}),
        ]
    ):
        page = hl.report(given, path=tmp_path / f"{n}.html", **options)
        text = page.read_text()
        assert text.startswith("<!doctype html>")
        assert options.get("title", "") in text
    assert "network" in (tmp_path / "4.html").read_text()
    with pytest.raises(hl.errors.ParameterError, match="analysed already"):
        hl.report(hl.analyze(model, inputs=x), inputs=x, path=tmp_path / "x.html")
