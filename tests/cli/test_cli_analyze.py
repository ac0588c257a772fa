"""``hoplens analyze`` as a stranger uses it: every kind of file, bad input, an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import hoplens as hl
from hoplens.cli.commands.analyze import run_analyze
from hoplens.errors import HoplensError


def model(rnn: nn.Module, hidden: int) -> nn.ModuleDict:
    return nn.ModuleDict({"core": rnn, "head": nn.Linear(hidden, 2)})


def say(file: object, tmp_path: Path, **options: object) -> str:
    """Run the command inside this process and return what it printed."""
    names = ("rnn", "readout", "inputs", "nonlinearity", "at", "radius", "out")
    defaults = {**dict.fromkeys(names), "horizon": 4, "table_format": "csv"}
    with (tmp_path / "printed.txt").open("w+") as file_out:
        console = Console(file=file_out, width=200)
        run_analyze(console, str(file), **{**defaults, **options})  # type: ignore[arg-type]
        file_out.seek(0)
        return file_out.read()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kinds = {
            "rnn": model(nn.RNN(3, 8, nonlinearity="relu"), 8),
            "stack": model(nn.LSTM(3, 4, 2, bidirectional=True), 8),
            "cell": model(nn.GRUCell(3, 8), 8),
            "projected": model(nn.LSTM(3, 8, proj_size=4), 4),
        }
        for name, module in kinds.items():
            save_file(module.state_dict(), tmp_path / f"{name}.safetensors")
            torch.save(module.state_dict(), tmp_path / f"{name}.pt")
        half = {key: value.half() for key, value in kinds["rnn"].state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    save_file({key: value.to(torch.int8) for key, value in half.items()}, tmp_path / "int8.safetensors")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "rnn.pt").read_bytes()[:700])
    (tmp_path / "empty.pt").write_bytes(b"")
    x = np.random.default_rng(0).standard_normal((5, 9, 3))
    arrays = {"inputs": x, "complex": x + 1j, "nan": x * np.nan, "text": x.astype(str), "narrow": x[..., :2]}
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", inputs=array)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    np.save(tmp_path / "plain.npy", x)
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    return tmp_path


@pytest.mark.parametrize("name", ["rnn", "stack", "cell", "projected"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_kind_of_file_is_judged_on_inputs(files: Path, name: str, suffix: str) -> None:
    shown = say(files / f"{name}{suffix}", files, inputs=files / "inputs.npz")
    stack = hl.models.load_stack(files / f"{name}{suffix}")
    x = torch.from_numpy(np.load(files / "plain.npy")).float()
    own = hl.read(stack).detach().to(torch.float64)
    wanted = hl.fidelity(own, hl.trajectory_maps(stack, x))
    assert wanted.summary() in shown
    first = shown.split("most influence")[1].split("\n")[0]
    hop = int(first.split("hop ")[1].split(":")[0])
    exact = hl.hop_maps(stack, inputs=x)
    assert int(exact.hops[exact.values.abs().sum((1, 2)).argmax()]) == hop
    raw = say(files / f"{name}{suffix}", files, inputs=files / "inputs.npz", at="origin")
    first = raw.split("most influence")[1].split("\n")[0]
    # walks of a bidirectional network have no lag that data could be compared by
    assert ("(r = " in first) == (name != "stack")


def test_options_reach_the_analysis(files: Path) -> None:
    tanh = say(files / "rnn.pt", files, inputs=files / "plain.npy")
    relu = say(files / "rnn.pt", files, inputs=files / "plain.npy", nonlinearity="relu")
    assert tanh != relu
    assert "float16; computed in float64" in say(files / "half.safetensors", files)
    assert "spectral radius 0.3\n" in say(files / "rnn.pt", files, radius=0.3)


@pytest.mark.parametrize(
    ("file", "options", "says"),
    [
        ("cut.pt", {}, "cannot read"),
        ("empty.pt", {}, "cannot read"),
        ("int8.safetensors", {}, "quantised"),
        ("rnn.pt", {"inputs": "complex.npz"}, "finite numbers"),
        ("rnn.pt", {"inputs": "nan.npz"}, "finite numbers"),
        ("rnn.pt", {"inputs": "text.npz"}, "finite numbers"),
        ("rnn.pt", {"inputs": "narrow.npz"}, "I = 3"),
        ("rnn.pt", {"inputs": "two.npz"}, "'inputs'; it holds a, b"),
        ("rnn.pt", {"inputs": "junk.npz"}, "cannot read"),
        ("rnn.pt", {"inputs": "none.npz"}, "no file"),
        ("rnn.pt", {"nonlinearity": "gelu"}, "unknown nonlinearity"),
        ("rnn.pt", {"radius": 0.0}, "radius must be"),
        ("rnn.pt", {"rnn": "encoder"}, "unknown rnn prefix"),
        ("rnn.pt", {"table_format": "xls"}, "unknown table format"),
        ("rnn.pt", {"out": "rnn.pt"}, "must name a folder"),
        ("rnn.pt", {"horizon": 10**9}, "shorter horizon"),
        ("celegans", {"rnn": "core"}, "goes with a file"),
    ],
)
def test_bad_input_is_one_sentence(files: Path, file: str, options: dict, says: str) -> None:
    given = {k: files / v if k in ("inputs", "out") else v for k, v in options.items()}
    before = sorted(path.name for path in files.iterdir())
    with pytest.raises(HoplensError, match=says) as caught:
        say(file if file == "celegans" else files / file, files, **given)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in files.iterdir() if path.name != "printed.txt") == before


def test_parquet_holds_what_csv_holds(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    options = {"inputs": files / "inputs.npz"}
    for kind in ("csv", "parquet"):
        say(files / "stack.pt", files, out=files / kind, table_format=kind, **options)
    names = sorted(path.stem for path in (files / "parquet").glob("*.parquet"))
    assert names == ["fidelity", "hop_maps", "pairs", "paths", "units", "weights_hop_maps"]
    for name in names:
        left = pd.read_csv(files / "csv" / f"{name}.csv")
        right = pd.read_parquet(files / "parquet" / f"{name}.parquet")
        pd.testing.assert_frame_equal(left, right, check_dtype=False)


def test_parquet_without_pyarrow_names_the_extra(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HoplensError, match=r"hoplens\[parquet\]"):
        say(files / "rnn.pt", files, out=files / "out", table_format="parquet")
    assert not (files / "out").exists()


def test_an_interrupt_leaves_no_trace(tmp_path: Path) -> None:
    """Stopped in the middle of the work: exit code 130, no traceback, no folder."""
    script = (
        "import hoplens.analysis.analysing as a, time\n"
        "def slow(self): print('drawing', flush=True); time.sleep(60)\n"
        "a.Analysis.figures = slow\n"
        "from hoplens.cli.app import main\n"
        "main()\n"
    )
    arguments = ["analyze", "celegans", "--horizon", "3", "--out", str(tmp_path / "o")]
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    while "drawing" not in process.stdout.readline() and time.monotonic() < deadline:
        pass
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not (tmp_path / "o").exists()


def test_a_failed_write_keeps_the_folder_as_it_was(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(files / "rnn.pt", files, out=files / "out")
    before = {path.name: path.read_bytes() for path in (files / "out").iterdir()}

    def fail(self: hl.Analysis) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(hl.Analysis, "figures", fail)
    with pytest.raises(KeyboardInterrupt):
        say(files / "stack.pt", files, out=files / "out")
    assert {path.name: path.read_bytes() for path in (files / "out").iterdir()} == before
