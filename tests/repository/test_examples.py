"""The examples run, and say what they claim."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from places import ROOT
from size import full

EXAMPLES = ROOT / "examples"


def test_own_reader(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "own_reader.py"))["main"]()
    assert capsys.readouterr().out.count("weights explain") == 2


def test_worm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "worm.py"))["main"](str(tmp_path), 4)
    shown = capsys.readouterr().out
    assert "> AVAL > " in shown
    missed = re.search(r"null models miss the summed weights of neurons by ([\d.]+)%", shown)
    assert 1 < float(missed[1]) < 4  # the draws decide the rest
    names = {"worm-null.png", "worm-dominant-hop.png", "worm-lesions.png"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_lstm_of_the_voice_activity_package(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The real weights, from the package that the test extra installs; none of its code is run."""
    example = runpy.run_path(str(EXAMPLES / "voice_activity_lstm.py"))
    weights = example["find_weights"]()
    if weights is None:
        pytest.skip("silero-vad is not installed")
    curves = example["voice_activity"](weights)
    assert "128 inputs -> 256 hidden" in capsys.readouterr().out
    exact, origin = curves["exact, along the inputs"], curves["weights at the origin"]
    assert origin[-1] > 20 * origin[0]  # what the guide says of it
    assert exact[-1] < exact[0]
    example["draw"]({"LSTM": curves}, tmp_path / "gated.png")
    assert (tmp_path / "gated.png").stat().st_size > 0


def test_a_trained_gru_is_understood_along_its_trajectory(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "voice_activity_lstm.py"))["trained_gru"]()
    out = capsys.readouterr().out
    lag = next(line for line in out.splitlines() if line.startswith("  lag 2"))
    assert 0.8 < float(lag.split("map ")[1].split(" ")[0]) < 1.2


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        (
            "chorales",
            {"steps": 100, "hidden": 8, "moments": 1},
            "nats a chord from the frequency of each pitch: 10.6",
        ),
        ("vowels", {"steps": 120}, "speaker 9: coefficient"),
    ],
)
def test_what_was_learnt_from_real_sequences(
    name: str,
    options: dict[str, int],
    shown: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    state = torch.get_rng_state()
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](str(tmp_path), **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert (tmp_path / f"{name}.png").stat().st_size > 50_000
    out = capsys.readouterr().out
    assert shown in out
    for line in out.splitlines():  # shares of lags fall
        if line.startswith("pathway penalty, exact"):
            first, *_, last = (float(x) for x in line.split(": ")[1].split(","))
            assert 1 > first > 2 * last
    if name == "vowels":
        accuracy = next(line for line in out.splitlines() if line.strip().startswith("recommended")).split()[
            -1
        ]
        assert float(accuracy) > 0.8  # chance is 0.13


@full
def test_digits_are_compressed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    example = runpy.run_path(str(EXAMPLES / "compress_digits.py"))
    options = ("--quick", "--steps", "10", "--seconds", "0.01")
    example["main"](str(tmp_path), *options, hidden=12, steps=300)
    shown = capfd.readouterr().out
    assert "of the given model's, limit 25.0%" in shown
    card = (tmp_path / "out" / "card.md").read_text()
    accuracy = float(card.split("accuracy (n = 299, held back) | ")[1].split(" ")[0])
    assert accuracy > 0.7
