"""ONNX files: run elsewhere, at other sizes, they compute what the module computes."""

from __future__ import annotations

import builtins
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import hoplens as hl
from hoplens.export import onnx_file
from hoplens.models.initial import create_ensemble

BATCH_TIME = [(1, 1), (4, 9)]  # neither is what the export itself looks at


@pytest.fixture(autouse=True)
def _own_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def cores():
    torch.manual_seed(0)
    first = {"batch_first": True}
    return {
        "tanh": nn.RNN(3, 5, **first),
        "relu stack": nn.RNN(3, 5, 2, nonlinearity="relu", bias=False),  # time first
        "gru both ways": nn.GRU(3, 5, 2, bidirectional=True, **first),
        "lstm stack": nn.LSTM(3, 5, 2, **first),
        "lstm both ways": nn.LSTM(3, 5, bidirectional=True, bias=False),
        "leaky": hl.LeakyRNN(3, 5, 0.3),
        "leaky relu": hl.LeakyRNN(3, 5, 0.3, nonlinearity="relu"),
    }


def width(core):
    return (getattr(core, "proj_size", 0) or core.hidden_size) * (2 if core.bidirectional else 1)


def run_file(path, x, **more):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {"inputs": x.numpy(), **{name: np.asarray(value) for name, value in more.items()}}
    return [torch.from_numpy(found) for found in session.run(None, feed)]


def expected(core, readout, x, every_step=False):
    with torch.no_grad():
        states = core(x)[0] if core.batch_first else core(x.transpose(0, 1))[0].transpose(0, 1)
        return readout(states if every_step else states[:, -1])


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("kind", cores())
def test_file_computes_what_the_module_computes_at_any_size(kind, every_step, tmp_path):
    core = cores()[kind]
    readout = nn.Linear(width(core), 2)
    info = hl.ModelInfo(every_step=every_step)
    written = hl.export_onnx(core, tmp_path / "m.onnx", readout=readout, info=info)
    assert written.n_bytes == (tmp_path / "m.onnx").stat().st_size
    assert written.difference <= 1e-5
    onnx.checker.check_model(onnx.load(written.path), full_check=True)
    for size in BATCH_TIME:
        x = torch.randn(*size, 3)
        found = run_file(written.path, x)[0]
        torch.testing.assert_close(found, expected(core, readout, x, every_step), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("both", [False, True])
def test_projected_lstm_becomes_a_scan(both, tmp_path):
    core = nn.LSTM(3, 6, 2, proj_size=4, batch_first=True, bidirectional=both)
    readout = nn.Linear(width(core), 2)
    hl.export_onnx(core, tmp_path / "m.onnx", readout=readout)
    assert "Scan" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    x = torch.randn(4, 9, 3)
    found = run_file(tmp_path / "m.onnx", x)[0]
    torch.testing.assert_close(found, expected(core, readout, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", [nn.RNNCell(3, 5), nn.GRUCell(3, 5), nn.LSTMCell(3, 5)], ids=type)
def test_single_cells_without_a_readout_show_their_units(cell, tmp_path):
    hl.export_onnx(cell, tmp_path / "m.onnx")
    x = torch.randn(2, 4, 3)
    state = None
    with torch.no_grad():
        for t in range(4):
            state = cell(x[:, t], state)
    shown = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(run_file(tmp_path / "m.onnx", x)[0], shown, atol=1e-6, rtol=0)


KINDS = [("linear", 1.0), ("tanh", 1.0), ("relu", 0.4), ("linear", 0.4)]


@pytest.mark.parametrize(("activation", "leak"), KINDS)
def test_rows_of_our_ensembles(activation, leak, tmp_path):
    nets = create_ensemble(
        [0, 1],
        ["gaussian"] * 2,
        n_inputs=3,
        hidden=6,
        n_outputs=2,
        length=5,
        cell=activation,
        leak=leak,
    )
    nets.weight[:, -1] = 0.1
    x = torch.randn(4, 7, 3)
    hl.export_onnx(nets.select(slice(1, 2)), tmp_path / "m.onnx")
    torch.testing.assert_close(run_file(tmp_path / "m.onnx", x)[0], nets.predict(x)[1], atol=1e-5, rtol=0)
    with pytest.raises(hl.errors.ParameterError, match="ensemble of 2"):
        hl.export_onnx(nets, tmp_path / "n.onnx")


@pytest.mark.parametrize("kind", ["tanh", "lstm stack", "leaky"])
@pytest.mark.parametrize("window", [None, 3])
def test_lengths_and_windows(kind, window, tmp_path):
    core = cores()[kind]
    model = hl.RecurrentModel(core, nn.Linear(5, 2), hl.ModelInfo(window=window))
    hl.export_onnx(model, tmp_path / "m.onnx", lengths=True)
    x, lengths = torch.randn(4, 6, 3), torch.tensor([1, 2, 4, 6])
    found = run_file(tmp_path / "m.onnx", x, lengths=lengths)[0]
    for row, length in enumerate(lengths.tolist()):
        kept = x[row : row + 1, :length][:, -(window or length) :]
        torch.testing.assert_close(found[row], expected(core, model.readout, kept)[0], atol=1e-5, rtol=0)
    hl.export_onnx(model, tmp_path / "all.onnx")
    for steps in (2, 6):  # shorter and longer than the window
        found = run_file(tmp_path / "all.onnx", x[:, :steps])[0]
        kept = x[:, :steps][:, -(window or steps) :]
        torch.testing.assert_close(found, expected(core, model.readout, kept), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["relu stack", "lstm stack", "leaky"])
def test_a_stream_in_pieces_is_the_same_as_a_whole(kind, tmp_path):
    core, readout = cores()[kind], nn.Linear(5, 2)
    hl.export_onnx(
        core, tmp_path / "m.onnx", readout=readout, stateful=True, info=hl.ModelInfo(every_step=True)
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    states = {put.name: np.zeros((2, 5), np.float32) for put in session.get_inputs()[1:]}
    assert {f"next_{name}" for name in states} == {put.name for put in session.get_outputs()[1:]}
    x = torch.randn(2, 7, 3)
    shown = []
    for piece in x.split([1, 4, 2], dim=1):
        found = session.run(["outputs", *(f"next_{n}" for n in states)], {"inputs": piece.numpy(), **states})
        shown.append(torch.from_numpy(found[0]))
        states = dict(zip(states, found[1:], strict=True))
    torch.testing.assert_close(
        torch.cat(shown, dim=1), expected(core, readout, x, every_step=True), atol=1e-5, rtol=0
    )


def test_masks_are_applied_and_the_module_stays_as_it_was(tmp_path):
    core = nn.GRU(3, 5, 2, batch_first=True, dropout=0.5)  # training mode: dropout is on
    prune.l1_unstructured(core, "weight_hh_l0", 0.5)
    before = {key: value.clone() for key, value in core.state_dict().items()}
    numbers = torch.random.get_rng_state()
    hl.export_onnx(core, tmp_path / "m.onnx")
    assert core.training
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert all(torch.equal(value, before[key]) for key, value in core.state_dict().items())
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(
        run_file(tmp_path / "m.onnx", x)[0], core.eval()(x)[0][:, -1], atol=1e-6, rtol=0
    )


def test_storage_makes_sparse_files_smaller_without_changing_them(tmp_path):
    core = nn.GRU(3, 48, batch_first=True)
    with torch.no_grad():
        core.weight_hh_l0 *= torch.rand_like(core.weight_hh_l0) < 0.2
    x = torch.randn(2, 6, 3)
    written = hl.export_onnx(core, tmp_path / "sparse.onnx")
    onnx.checker.check_model(onnx.load(written.path), full_check=True)
    found = run_file(written.path, x)[0]
    assert float((found - core(x)[0][:, -1]).detach().abs().max()) < 1e-6
    whole = hl.export_onnx(nn.GRU(3, 48, batch_first=True), tmp_path / "full.onnx").n_bytes
    numbers = 4 * sum(value.numel() for value in core.state_dict().values())
    assert numbers < whole < 1.1 * numbers  # nothing to gain, nothing packed
    assert written.n_bytes < 0.4 * whole


@pytest.mark.parametrize("form", ["int8", "int4", "ternary"])
@pytest.mark.parametrize("kind", ["gru both ways", "lstm stack", "leaky"])
def test_quantised_weights_lie_in_few_bits_and_are_the_same_numbers(kind, form, tmp_path):
    core = cores()[kind]
    model = hl.RecurrentModel(core, nn.Linear(width(core), 2))
    quantised = hl.quantise(model, form)
    written = hl.export_onnx(quantised, tmp_path / "m.onnx")
    onnx.checker.check_model(onnx.load(written.path), full_check=True)
    x = torch.randn(4, 9, 3)
    wanted = quantised.model(x).detach()
    torch.testing.assert_close(run_file(tmp_path / "m.onnx", x)[0], wanted, atol=1e-6, rtol=0)


def test_few_bits_and_zeros_make_small_files(tmp_path):
    model = hl.RecurrentModel(nn.GRU(3, 64, batch_first=True), nn.Linear(64, 2))
    whole = hl.export_onnx(model, tmp_path / "m.onnx").n_bytes
    forms = [hl.quantise(model, form) for form in ("int8", "int4", "ternary")]
    sizes = [hl.export_onnx(quantised, tmp_path / "m.onnx").n_bytes for quantised in forms]
    assert sizes[0] < 0.35 * whole
    assert sizes[1] < 0.7 * sizes[0]
    assert sizes[2] < 0.8 * sizes[1]
    with torch.no_grad():
        model.core.weight_hh_l0 *= torch.rand_like(model.core.weight_hh_l0) < 0.1
    x = torch.randn(2, 5, 3)
    quantised = hl.quantise(model)
    assert hl.export_onnx(quantised, tmp_path / "m.onnx").n_bytes < 0.5 * sizes[0]
    torch.testing.assert_close(
        run_file(tmp_path / "m.onnx", x)[0], quantised.model(x).detach(), atol=1e-6, rtol=0
    )


def test_packed_weights_are_unpacked_once_when_the_file_is_loaded(tmp_path):
    core = nn.GRU(3, 48, batch_first=True)
    with torch.no_grad():
        core.weight_hh_l0 *= torch.rand_like(core.weight_hh_l0) < 0.2
    model = hl.RecurrentModel(core, nn.Linear(48, 2))
    for network in (model, hl.quantise(model, "int4")):
        hl.export_onnx(network, tmp_path / "m.onnx")
        stored = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
        assert "CumSum" in stored
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
        run = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
        assert run <= {"Transpose", "GRU", "Squeeze", "Gather", "Gemm", "MatMul", "Add"}


def test_metadata_says_how_to_feed_the_file(tmp_path):
    info = hl.ModelInfo(
        window=4, input_names=("a", "b"), output_names=("y",), input_mean=(1.0, 2.0), input_scale=(0.5, 2.0)
    )
    model = hl.RecurrentModel(nn.RNN(2, 4, batch_first=True), nn.Linear(4, 1), info)
    hl.export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["hoplens_version"] == hl.__version__
    assert told["opset"] == "17"
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 17
    for name in ("window", "input_names", "output_names", "input_mean", "input_scale", "every_step"):
        value = getattr(info, name)
        assert json.loads(told[name]) == (list(value) if isinstance(value, tuple) else value)
    assert session.get_inputs()[0].shape == ["batch", "time", 2]


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    core = nn.GRU(3, 5, batch_first=True)
    build = onnx_file.build_graph

    def wrong(source, **options):
        proto = build(source, **options)
        for node in proto.graph.node:
            for attribute in node.attribute:
                if attribute.name == "linear_before_reset":
                    attribute.i = 0  # what a naive export does
        return proto

    monkeypatch.setattr(onnx_file, "build_graph", wrong)
    (tmp_path / "m.onnx").write_bytes(b"old")
    with pytest.raises(hl.errors.ExportError, match="differs from the model by"):
        hl.export_onnx(core, tmp_path / "m.onnx")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_bad_requests_are_refused_in_words(tmp_path, monkeypatch):
    path, rnn = tmp_path / "m.onnx", nn.RNN(3, 5, batch_first=True)
    both = nn.GRU(3, 5, bidirectional=True)
    model = hl.RecurrentModel(rnn, nn.Linear(5, 2))
    broken = nn.RNN(3, 5)
    with torch.no_grad():
        broken.weight_hh_l0[0, 0] = float("nan")
    for raised, says, arguments in [
        (hl.errors.ParameterError, "one way", {"model": both, "lengths": True}),
        (hl.errors.ParameterError, "exclude each other", {"model": rnn, "lengths": True, "stateful": True}),
        (hl.errors.ParameterError, "brings its own read-out", {"model": model, "readout": nn.Linear(5, 2)}),
        (hl.errors.ParameterError, "runs one way", {"model": both, "info": hl.ModelInfo(window=2)}),
        (
            hl.errors.ParameterError,
            "afresh",
            {"model": rnn, "info": hl.ModelInfo(window=2), "stateful": True},
        ),
        (hl.errors.ShapeError, "3 entries", {"model": rnn, "info": hl.ModelInfo(input_names=("a",))}),
        (hl.errors.ShapeError, "I = 3", {"model": rnn, "inputs": torch.zeros(1, 2, 4)}),
        (hl.errors.ShapeError, "readout must take", {"model": rnn, "readout": nn.Linear(4, 2)}),
        (hl.errors.UnsupportedModelError, "cannot read a Linear", {"model": nn.Linear(3, 2)}),
        (
            hl.errors.UnsupportedModelError,
            "known equations",
            {"model": hl.models.FunctionCell(torch.add, n_inputs=2, n_state=2)},
        ),
        (hl.errors.NonFiniteError, "NaN or infinite", {"model": broken}),
        (hl.errors.FileError, "cannot write", {"model": rnn, "path": tmp_path / "no" / "m.onnx"}),
    ]:
        with pytest.raises(raised, match=says):
            hl.export_onnx(**{"path": path, **arguments})
    real = builtins.__import__

    def without(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(hl.errors.ParameterError, match=r"hoplens\[onnx\]"):
        hl.export_onnx(rnn, path)
    assert not path.exists()
