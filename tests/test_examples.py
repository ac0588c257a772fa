"""The examples run, and say what they claim."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_own_reader(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "own_reader.py"))["main"]()
    assert capsys.readouterr().out.count("weights explain") == 2


def test_worm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "worm.py"))["main"](str(tmp_path / "worm.png"), 4)
    assert "> AVAL > " in capsys.readouterr().out
    assert (tmp_path / "worm.png").stat().st_size > 0


def test_lstm_file_under_the_names_of_the_package(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A random stand-in with the package's keys and shapes: the file itself is not shipped."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = nn.LSTMCell(128, 128)
    state = {f"lstm_cell.{key}": value.detach() for key, value in cell.state_dict().items()}
    state |= {"final_conv.weight": torch.ones(1, 128, 1), "conv4.weight": torch.ones(128, 64, 3)}
    save_file(state, tmp_path / "vad.safetensors")
    runpy.run_path(str(EXAMPLES / "voice_activity_lstm.py"))["voice_activity"](tmp_path / "vad.safetensors")
    assert "128 inputs -> 256 hidden" in capsys.readouterr().out


def test_a_trained_gru_is_understood_along_its_trajectory(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "voice_activity_lstm.py"))["trained_gru"]()
    out = capsys.readouterr().out
    lag = next(line for line in out.splitlines() if line.startswith("  lag 2"))
    assert 0.8 < float(lag.split("map ")[1].split(" ")[0]) < 1.2
