"""Integer ONNX files: all products in integers, equal to the simulation, free in batch and time."""

from __future__ import annotations

import pytest
import torch
from quantisable import KINDS, draw, model_of
from torch import nn

import hoplens as hl
from hoplens.export import int8_onnx
from hoplens.export.onnx_integers import count_products

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def run(path, **feed):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in feed.items()})


@KINDS
@pytest.mark.parametrize("form", ["int8", "ternary"])
def test_every_product_is_in_integers_and_the_file_is_the_simulation(core, form, tmp_path):
    model = model_of(core)
    x = draw(0, 7, 9, 3)
    quantised = hl.quantise(model, form, inputs=x)
    done = hl.export_int8(quantised, tmp_path / "m.onnx", inputs=x)
    levels = core.num_layers * (2 if core.bidirectional else 1)
    per_cell = 3 if getattr(core, "proj_size", 0) else 2
    assert (done.int8_products, done.products) == (per_cell * levels + 1,) * 2
    assert done.n_bytes == (tmp_path / "m.onnx").stat().st_size
    got = torch.from_numpy(run(tmp_path / "m.onnx", inputs=x)[0])
    simulated = quantised.simulate(x)
    # a last bit may tip a rounding now and then; nearly all numbers agree to the last bits
    assert ((got - simulated).abs() < 1e-5).double().mean() > 0.8
    assert (got - simulated).abs().max() < 0.02 * simulated.abs().max()
    assert done.difference <= 0.25 * done.rounding + 1e-5
    kinds = {t.data_type for t in onnx.load(tmp_path / "m.onnx").graph.initializer if len(t.dims) == 2}
    assert kinds == {onnx.TensorProto.UINT8}


@pytest.mark.parametrize("core", [nn.RNN(8, 12, batch_first=True), nn.LSTM(8, 12, batch_first=True)], ids=str)
def test_sums_of_large_levels_do_not_overflow(core, tmp_path):
    # inputs that are never negative reach level 255; two of them times 127 are more than 16 bits hold
    x = draw(1, 40, 8, 8).abs().clamp(max=1.0)
    with torch.no_grad():
        core.weight_ih_l0.abs_()  # all at the top at once
    quantised = hl.quantise(hl.RecurrentModel(core, nn.Linear(12, 3)), "int8", inputs=x)
    hl.export_int8(quantised, tmp_path / "m.onnx", inputs=x)
    top = torch.ones(2, 8, 8)
    got = torch.from_numpy(run(tmp_path / "m.onnx", inputs=top)[0])
    assert (got - quantised.simulate(top)).abs().max() < 1e-5


def test_a_model_that_is_not_quantised_is_named(tmp_path):
    with pytest.raises(hl.errors.UnsupportedModelError, match="quantise it first"):
        hl.export_int8(model_of(nn.GRU(3, 5, batch_first=True)), tmp_path / "m.onnx")


@pytest.mark.parametrize("info", [{"every_step": True}, {"window": 4}], ids=str)
def test_every_step_and_windows(info, tmp_path):
    model = model_of(nn.GRU(3, 5, batch_first=True), **info)
    x = draw(0, 6, 9, 3)
    quantised = hl.quantise(model, inputs=x)
    hl.export_int8(quantised, tmp_path / "m.onnx", inputs=x)
    got = torch.from_numpy(run(tmp_path / "m.onnx", inputs=x)[0])
    assert got.shape == model(x).shape
    torch.testing.assert_close(got, quantised.simulate(x), rtol=0, atol=5e-3)
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert props["weights"] == "int8"
    assert props["window"] == str(info.get("window", "null"))


def test_a_stream_carries_its_state(tmp_path):
    model = model_of(nn.LSTM(3, 5, num_layers=2, batch_first=True), every_step=True)
    x = draw(0, 2, 7, 3)
    quantised = hl.quantise(model, inputs=x)
    hl.export_int8(quantised, tmp_path / "m.onnx", stateful=True)
    names = ("h_l0", "c_l0", "h_l1", "c_l1")
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    states = {name: torch.zeros(2, 5).numpy() for name in names}
    shown = []
    for t in range(7):
        found = session.run(
            ["outputs", *(f"next_{n}" for n in names)], {"inputs": x[:, t : t + 1].numpy(), **states}
        )
        shown.append(torch.from_numpy(found[0]))
        states = dict(zip(names, found[1:], strict=True))
    torch.testing.assert_close(torch.cat(shown, 1), quantised.simulate(x), rtol=0, atol=5e-3)


def test_products_of_other_files_are_counted_too(tmp_path):
    model = model_of(nn.GRU(3, 5, batch_first=True, bidirectional=True))
    hl.export_onnx(model, tmp_path / "f.onnx")
    assert count_products(onnx.load(tmp_path / "f.onnx").graph) == (0, 5)


def test_files_that_differ_are_not_written_and_bad_requests_refused(tmp_path, monkeypatch):
    model = model_of(nn.GRU(3, 5, batch_first=True))
    x = draw(0, 6, 9, 3)
    with pytest.raises(hl.errors.ParameterError, match="inputs="):
        hl.export_int8(hl.quantise(model), tmp_path / "m.onnx")
    quantised = hl.quantise(model, inputs=x)
    short = hl.quantise(hl.truncate(model, 3), inputs=x)
    with pytest.raises(hl.errors.ParameterError, match="carries its state"):
        hl.export_int8(short, tmp_path / "m.onnx", stateful=True)
    with pytest.raises(hl.errors.ShapeError, match="inputs must"):
        hl.export_int8(quantised, tmp_path / "m.onnx", inputs=draw(0, 2, 5, 4))
    build = int8_onnx.build_graph

    def broken(*given, **options):
        proto = build(*given, **options)
        bias = next(t for t in proto.graph.initializer if "bias_ih" in t.name)
        bias.CopyFrom(onnx.numpy_helper.from_array(1 + onnx.numpy_helper.to_array(bias), bias.name))
        return proto

    monkeypatch.setattr(int8_onnx, "build_graph", broken)
    with pytest.raises(hl.errors.ExportError, match="differs from the simulation"):
        hl.export_int8(quantised, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
