"""``hoplens export`` as a user runs it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from in_process import hoplens
from torch import nn
from typer.testing import CliRunner

import hoplens as hl
from hoplens.cli.app import app
from hoplens.export.exporters import EXPORTERS, Exporter


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.ModuleDict({"rnn": nn.GRU(3, 6, batch_first=True), "out": nn.Linear(6, 2)})
        leaky = hl.RecurrentModel(hl.LeakyRNN(3, 6, 0.2), nn.Linear(6, 2))
    torch.save(net.state_dict(), folder / "net.pt")
    hl.save(leaky, folder / "leaky.safetensors")
    (folder / "cut.pt").write_bytes((folder / "net.pt").read_bytes()[:500])
    x = np.random.default_rng(0).standard_normal((12, 7, 3)).astype(np.float32)
    np.savez(folder / "data.npz", inputs=x, targets=np.arange(12) % 2)
    return folder, net


def test_onnx_from_a_state_dict(files, tmp_path):
    folder, net = files
    out = tmp_path / "net.onnx"
    shown = hoplens("export", str(folder / "net.pt"), "-o", str(out), "--data", str(folder / "data.npz"))
    assert shown.returncode == 0, shown.stderr
    assert f"{out.stat().st_size} bytes, opset 17" in shown.stdout
    assert "(12, 7, 3)" in shown.stdout
    x = torch.randn(2, 5, 3)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = net["out"](net["rnn"](x)[0][:, -1])
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"inputs": x.numpy()})[0]), wanted)


def test_nir_says_what_it_loses(files, tmp_path):
    folder, _ = files
    shown = hoplens(
        *("export", str(folder / "leaky.safetensors"), "--format", "nir", "-o", str(tmp_path / "m.nir")),
        *("--data", str(folder / "data.npz")),
    )
    assert shown.returncode == 0, shown.stderr
    assert "rate to LIF" in shown.stdout
    assert "on the targets: network 0." in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("net.pt", "-o", "x.h5"), "unknown format 'h5'"),
        (("net.pt", "-o", "x.nir"), "no gates"),
        (("nowhere.pt", "-o", "x.onnx"), "no file"),
        (("cut.pt", "-o", "x.onnx"), "cannot read"),
        (("data.npz", "-o", "x.onnx"), "cannot read"),
        (("net.pt", "-o", "no/x.onnx"), "cannot write"),
        (("net.pt", "-o", "x.onnx", "--rnn", "encoder"), "unknown rnn prefix"),
        (("leaky.safetensors", "-o", "x.nir", "--lengths"), "--lengths goes with"),
        (("net.pt", "-o", "x.onnx", "--dt", "-5"), "--dt goes with --format nir"),
        (("net.pt", "-o", "x.onnx", "--method", "zoh"), "--method goes with --format nir"),
        (("net.pt", "-o", "x.onnx", "--data", "net.pt"), "needs an array"),
    ],
)
def test_bad_input_is_one_line_and_no_file(files, arguments, says, monkeypatch):
    folder, _ = files
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(app, ["export", *arguments]).exception
    assert isinstance(error, hl.HoplensError)  # what main() prints as one line, exit code 2
    assert says in str(error)
    assert "\n" not in str(error)
    assert not list(folder.glob("x.*"))


def test_integer_products_need_sequences_and_are_written_with_them(files, tmp_path):
    folder, _ = files
    out = tmp_path / "net-int8.onnx"
    without = hoplens("export", str(folder / "net.pt"), "-o", str(out), "--format", "int8")
    assert without.returncode == 2
    assert "need sequences to set scales on" in without.stderr
    data = ("--data", str(folder / "data.npz"))
    shown = hoplens("export", str(folder / "net.pt"), "-o", str(out), "--format", "int8", *data)
    assert shown.returncode == 0, shown.stderr
    assert "products in integers" in shown.stdout
    refused = hoplens(
        "export", str(folder / "net.pt"), "-o", str(out), "--format", "int8", *data, "--dt", "2"
    )
    assert refused.returncode == 2
    assert "--dt goes with --format nir" in refused.stderr


def test_a_registered_format_is_exported_and_written_by_compress(files, tmp_path):
    folder, _ = files

    def write(model, path, *, inputs=None, targets=None):
        hl.save(model, path)
        return path

    def opened(path):
        model = hl.load(path)
        return lambda inputs: model(inputs).detach()

    own = Exporter("copy", ".copy", "a copy", write, opened, lambda path: f"copied to {path}")
    hl.extensions.register_exporter(own)
    try:
        with pytest.raises(hl.errors.ParameterError, match=r"'copy' .* is already defined"):
            EXPORTERS.add("copy", own, owner="somebody")
        shown = hoplens("export", str(folder / "net.pt"), "-o", str(tmp_path / "m.copy"))
        assert shown.returncode == 0, shown.stderr
        assert "copied to" in shown.stdout
        x, y = torch.randn(40, 5, 3), torch.arange(40) % 2
        np.savez(tmp_path / "d.npz", inputs=x.numpy(), targets=y.numpy())
        data = str(tmp_path / "d.npz")
        more = ("--out", str(tmp_path / "out"), "--steps", "1", "--seconds", "0.01", "--quick")
        more += ("--target-size", "1", "--max-loss", "1")
        shown = hoplens("compress", str(folder / "net.pt"), "--data", data, "--test", data, *more)
        assert shown.returncode == 0, shown.stderr
        assert (tmp_path / "out" / "model.copy").is_file()
        assert "| a copy file |" in (tmp_path / "out" / "card.md").read_text()
        table = pd.read_csv(tmp_path / "out" / "candidates.csv")
        assert (table["format"] == "copy").sum() == (table["format"] == "onnx").sum()
    finally:
        EXPORTERS.forget(EXPORTERS.source("copy"))
    unknown = hoplens("export", str(folder / "net.pt"), "-o", str(tmp_path / "m.copy"))
    assert unknown.returncode == 2
    assert "unknown format 'copy'" in unknown.stderr


@pytest.mark.parametrize("kind", ["onnx", "nir"])
def test_a_written_file_runs_as_its_model(kind, tmp_path):
    if kind == "nir":
        pytest.importorskip("nir")
    model = hl.RecurrentModel(hl.LeakyRNN(3, 6, 0.2, nonlinearity="linear"), nn.Linear(6, 2))
    exporter, x = EXPORTERS.get(kind), torch.randn(4, 7, 3)
    exporter.write(model, tmp_path / f"m{exporter.suffix}")
    run = exporter.open(tmp_path / f"m{exporter.suffix}")
    torch.testing.assert_close(run(x).float(), model(x).detach(), atol=1e-4, rtol=1e-3)
