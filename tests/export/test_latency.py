"""Latency: every contestant runs, takes turns, and is compared with the right one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quantisable import draw, model_of
from torch import nn

import hoplens as hl
from hoplens.export import latency

pytest.importorskip("onnxruntime")


def test_rows_of_all_runtimes_and_modes():
    model, x = model_of(nn.GRU(3, 5, batch_first=True)), draw(0, 4, 6, 3)
    models = {
        "whole": model,
        "short": hl.truncate(model, 2),
        "few bits": hl.quantise(model, inputs=x),
    }
    threads = torch.get_num_threads()
    frame = hl.export.measure_latency(models, x, seconds=1e-3)
    assert torch.get_num_threads() == threads
    runtimes = [
        ("whole", "eager"),
        ("whole", "onnx"),
        ("short", "eager"),
        ("short", "onnx"),
        ("few bits", "int8"),
    ]
    for mode in ("stream", "batch"):
        part = frame[frame["mode"] == mode]
        assert list(zip(part["model"], part["runtime"], strict=True)) == runtimes
    assert (frame["ms_low"] <= frame["ms"]).all()
    assert (frame["ms"] <= frame["ms_high"]).all()
    assert (frame["ms_low"] > 0).all()
    assert (frame["rounds"] >= latency.LEAST_ROUNDS).all()
    assert (frame.loc[frame["model"] == "whole", ["ratio_low", "ratio", "ratio_high"]] == 1).all(axis=None)


def test_ratios_are_taken_round_by_round_to_the_reference_in_the_same_runtime():
    times = {
        ("a", "eager"): [1.0, 2.0, 4.0], ("a", "onnx"): [1.0, 1.0, 1.0],
        ("b", "eager"): [2.0, 4.0, 8.0], ("b", "int8"): [0.5, 0.5, 0.5],
    }  # fmt: skip
    rows = {(r["model"], r["runtime"]): r for r in latency._rows(times, "stream", "a", 4)}
    assert rows["b", "eager"]["ratio"] == rows["b", "eager"]["ratio_high"] == 2.0
    assert rows["b", "int8"]["ratio"] == 0.5
    assert rows["a", "eager"]["ms"] == 500.0
    alone = latency._rows({("b", "int8"): [1.0]}, "stream", "a", 1)
    assert np.isnan(alone[0]["ratio"])


def test_contestants_take_turns():
    order = []
    runs = {(name, "eager"): lambda name=name: order.append(name) for name in "abc"}
    times = latency._take_turns(runs, 1e-9)
    assert order == list("abc") * (1 + latency.LEAST_ROUNDS)
    assert {len(own) for own in times.values()} == {latency.LEAST_ROUNDS}


@pytest.mark.parametrize("core", [nn.LSTM(3, 5, 2, batch_first=True), hl.LeakyRNN(3, 5, 0.5)], ids=str)
def test_streams_compute_what_the_model_does(core, tmp_path):
    model, x = model_of(core), draw(0, 2, latency.STEPS, 3)
    parts = latency._stream(x, None)
    with torch.no_grad():
        wanted = core(x[:1])[1]
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    state = latency._eager(model, parts, True)()
    state = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(state.flatten(), wanted.flatten())
    hl.export_onnx(model, tmp_path / "m.onnx", stateful=True)
    (state, *_) = latency._onnx(tmp_path / "m.onnx", parts, True)()
    torch.testing.assert_close(torch.from_numpy(state).flatten(), wanted[:1].flatten(), rtol=1e-4, atol=1e-5)
    windows = latency._stream(x, 3)
    assert len(windows) == latency.STEPS
    assert torch.equal(windows[4], x[:1, 4:7])


def test_a_bidirectional_model_has_no_stream_and_bad_requests_are_refused():
    model, x = model_of(nn.RNN(3, 5, batch_first=True, bidirectional=True)), draw(0, 2, 4, 3)
    frame = hl.export.measure_latency(model, x, runtimes=("eager",), seconds=1e-3)
    assert list(frame["mode"]) == ["batch"]
    with pytest.raises(hl.errors.ParameterError, match="reference"):
        hl.export.measure_latency({"a": model}, x, reference="b")
    with pytest.raises(hl.errors.ShapeError, match="inputs must"):
        hl.export.measure_latency(model, x[..., :2])
    with pytest.raises(hl.errors.UnsupportedModelError, match="a bare core needs"):
        hl.export.measure_latency({"a": model.core}, x)
    with pytest.raises(hl.errors.UnknownNameError, match="eager"):
        hl.export.measure_latency(model, x, runtimes=("eagre",))


@pytest.mark.parametrize("how", ["zeros", "int4", "ternary"])
def test_packed_weights_are_unpacked_at_loading_and_not_at_every_call(how, tmp_path):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    core = nn.GRU(16, 64, batch_first=True)
    model = hl.RecurrentModel(core, nn.Linear(64, 2))
    if how == "zeros":
        hl.export_onnx(hl.prune(model, 0.9, by="magnitude").model, tmp_path / "m.onnx")
    else:
        hl.export_onnx(hl.quantise(model, how), tmp_path / "m.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert kinds & {"CumSum", "Mod"}  # packed
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert left <= {"Transpose", "GRU", "Squeeze", "Gather", "Gemm", "MatMul", "Add", "Identity"}
