"""A file that does not say which units its network has: asked, said on every result, held against targets."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import hoplens as hl
from hoplens.cli.app import app
from hoplens.reports.explanation import render_page

X = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ReLU network as bare weights and as a saved model, with targets that it itself gives."""
    place = tmp_path_factory.mktemp("units")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.ModuleDict(
            {"rnn": nn.RNN(3, 6, batch_first=True, nonlinearity="relu"), "out": nn.Linear(6, 2)}
        )
    torch.save(net.state_dict(), place / "net.pt")
    hl.save(hl.RecurrentModel(net["rnn"], net["out"]), place / "net.safetensors")
    with torch.no_grad():
        y = net["out"](net["rnn"](X)[0][:, -1])
    np.savez(place / "data.npz", inputs=X.numpy(), targets=y.numpy())
    np.savez(place / "plain.npz", inputs=X.numpy())
    return place, net, y


def run(*words):
    """Return what a command printed, or raise its error."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output.replace("\n", " ")


def commands(place, model, data, out):
    return {
        "explain": ("explain", place / model, "--inputs", place / data, "-o", out / "why.html"),
        "export": ("export", place / model, "--data", place / data, "-o", out / "m.onnx"),
        "analyze": ("analyze", place / model, "--inputs", place / data, "--horizon", 4, "--out", out / "all"),
        "report": (
            "report",
            place / model,
            "--inputs",
            place / data,
            "--horizon",
            4,
            "-o",
            out / "p.html",
        ),
    }


@pytest.mark.parametrize("command", ["explain", "export", "analyze", "report", "compress"])
def test_where_targets_are_at_hand_the_worse_units_are_not_assumed(command, folder, tmp_path):
    place, *_ = folder
    words = commands(place, "net.pt", "data.npz", tmp_path) | {
        "compress": ("compress", place / "net.pt", "--data", place / "data.npz", "--test", place / "data.npz",
                     "-o", tmp_path / "small")
    }  # fmt: skip
    with pytest.raises(
        hl.errors.ParameterError, match=r"relu fits better \(1\.000 against .*--nonlinearity relu"
    ):
        run(*words[command])
    assert not (tmp_path / "m.onnx").exists()
    if command != "compress":
        assert "assumed" not in run(*words[command], "--nonlinearity", "relu")
        assert "relu units would fit better than tanh" in run(*words[command], "--nonlinearity", "tanh")


@pytest.mark.parametrize("command", ["explain", "export", "analyze", "report"])
def test_without_targets_every_result_says_what_was_assumed(command, folder, tmp_path):
    place, *_ = folder
    shown = run(*commands(place, "net.pt", "plain.npz", tmp_path)[command])
    told = "assumed: tanh units without leak, as net.pt does not say"
    if command != "report":
        assert told in shown
    for name in ("why.html", "p.html", "all/report.html", "all/summary.txt"):
        if (tmp_path / name).exists():
            assert told in (tmp_path / name).read_text()
    if command == "export":
        props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
        assert told in f"assumed: {props['assumed']}"
    given = run(*commands(place, "net.safetensors", "plain.npz", tmp_path)[command])
    assert "assumed" not in given  # the file says


def test_functions_that_take_a_file_take_the_units_and_say_what_they_assumed(folder, tmp_path):
    place, net, y = folder
    file = place / "net.pt"
    told = "assumed: tanh units without leak"
    relu = {"nonlinearity": "relu"}
    why = hl.explain(file, X, **relu)
    torch.testing.assert_close(why.output, y[:, 0].double(), rtol=0, atol=1e-5)
    assert told in hl.explain(file, X).label
    assert told in render_page(hl.explain(file, X[:1]))
    assert "relu" in why.label
    assert told in hl.read(file).provenance
    assert told not in hl.read(file, **relu).provenance
    assert any(told in note for note in hl.analyze(file, inputs=X, horizon=3).notes)
    assert told in hl.models.load_stack(file).label
    exact = hl.trajectory_maps(hl.RecurrentModel(net["rnn"], net["out"]), X)
    torch.testing.assert_close(hl.trajectory_maps(hl.models.load_stack(file, **relu), X).values, exact.values)
    model = hl.load(file)
    assert model.info.assumed.startswith("tanh units")
    assert hl.load(file, **relu).info.assumed == ""
    # what is made of it still says so, and its file does
    small = hl.prune(model, 0.5)
    assert told in hl.trajectory_maps(small, X).label
    hl.save(small, tmp_path / "small.safetensors")
    assert told in hl.read(tmp_path / "small.safetensors").provenance
    done = hl.export_onnx(small, tmp_path / "small.onnx")
    props = {p.key: p.value for p in onnx.load(done.path).metadata_props}
    assert told in f"assumed: {props['assumed']}"


def test_a_saved_model_is_read_with_its_own_units_and_leak_by_all(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = hl.RecurrentModel(hl.LeakyRNN(3, 5, 0.3, nonlinearity="relu"), nn.Linear(5, 2))
    hl.save(model, tmp_path / "m.safetensors")
    with torch.no_grad():
        wanted = model(X)
    for file in (tmp_path / "m.safetensors", (tmp_path / "m.pt")):
        file.write_bytes((tmp_path / "m.safetensors").read_bytes())  # whatever it is called
        torch.testing.assert_close(hl.read(file).w_rec, hl.read(model).detach().w_rec)
        with torch.no_grad():
            torch.testing.assert_close(hl.load(file)(X), wanted)
            torch.testing.assert_close(hl.load(file)(X), wanted)
        why = hl.explain(file, X, output=1, method="secant")
        torch.testing.assert_close(why.output, wanted[:, 1].double(), rtol=0, atol=1e-5)
    for call in (hl.read, hl.load, hl.models.load_stack, hl.analyze):
        with pytest.raises(hl.errors.ParameterError, match="says that it holds relu units"):
            call(tmp_path / "m.safetensors", nonlinearity="tanh")


def test_linear_units_in_a_file_run_as_such(folder):
    place, net, _ = folder
    model = hl.load(place / "net.pt", nonlinearity="linear")
    own = net["rnn"]
    h = torch.zeros(len(X), 6)
    with torch.no_grad():
        for x in X.unbind(1):
            h = x @ own.weight_ih_l0.T + own.bias_ih_l0 + h @ own.weight_hh_l0.T + own.bias_hh_l0
        torch.testing.assert_close(model(X), net["out"](h))


def test_options_that_would_be_ignored_are_refused(tmp_path):
    torch.save(nn.ModuleDict({"a": nn.GRU(3, 4), "b": nn.Linear(4, 2)}).state_dict(), tmp_path / "gru.pt")
    with pytest.raises(hl.errors.ParameterError, match="goes with a plain RNN"):
        hl.read(tmp_path / "gru.pt", nonlinearity="relu")
    for call in (hl.read, hl.analyze):
        with pytest.raises(hl.errors.ParameterError, match="nonlinearity="):
            call(nn.GRU(3, 4), nonlinearity="relu")
    with pytest.raises(hl.errors.ParameterError, match="nonlinearity="):
        hl.explain(nn.GRU(3, 4), X, readout=nn.Linear(4, 2), nonlinearity="relu")


def test_each_opener_names_the_other_for_its_files(folder):
    place, *_ = folder
    with pytest.raises(hl.errors.FileError, match=r"open a state_dict of torch with hoplens\.load"):
        hl.models.load_model(place / "net.pt")
    (place / "named.safetensors").write_bytes((place / "net.pt").read_bytes())
    with pytest.raises(hl.errors.FileError, match=r"hoplens\.load"):
        hl.models.load_model(place / "named.safetensors")
    assert hl.load(place / "named.safetensors", nonlinearity="relu").core.nonlinearity == "relu"
    assert hl.load(place / "net.safetensors").core.nonlinearity == "relu"


def test_the_mean_over_the_inputs_is_a_place_to_linearise(folder):
    place, *_ = folder
    gru, head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)
    found = hl.analyze(gru, head, inputs=X, at="mean", horizon=4)
    wanted = hl.read(gru, head, at="mean", inputs=X)
    torch.testing.assert_close(found.net.w_rec, wanted.detach().w_rec.double())
    assert "mean of 240 steps" in found.net.provenance
    with pytest.raises(hl.errors.ParameterError, match="inputs="):
        hl.analyze(gru, head, at="mean")
    shown = run(
        "analyze", place / "net.safetensors", "--inputs", place / "plain.npz", "--at", "mean", "--horizon", 3
    )
    assert "mean of 240 steps" in shown
    with pytest.raises(hl.HoplensError, match="--at"):
        run("analyze", place / "net.safetensors", "--at", "steps")
    with pytest.raises(hl.HoplensError, match="--inputs"):
        run("analyze", place / "net.safetensors", "--at", "mean")
