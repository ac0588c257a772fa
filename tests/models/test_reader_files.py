"""Files: prefixes guessed or given, weights only, code refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import hoplens as hl
from hoplens.errors import FileError, ParameterError, UnknownNameError, UnsupportedModelError


class Model(nn.Module):
    def __init__(self, kind: str, **options: object) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = getattr(nn, kind)(3, 5, **options)
            width = (options.get("proj_size") or 5) * (2 if options.get("bidirectional") else 1)
            self.head = nn.Linear(width, 2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("RNN", {}), ("GRU", {"num_layers": 2}), ("LSTM", {"bidirectional": True}),
        ("LSTM", {"proj_size": 2}),
        ("GRUCell", {}), ("LSTMCell", {"bias": False}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_equal_modules(tmp_path: Path, kind: str, options: dict, suffix: str) -> None:
    model = Model(kind, **options)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    wanted, got = hl.read(model.encoder, model.head), hl.read(path)
    for block in ("w_in", "w_rec", "w_out"):
        torch.testing.assert_close(getattr(got, block), getattr(wanted, block).detach())
    torch.testing.assert_close(hl.read(str(path), "head", rnn="encoder").w_rec, got.w_rec)
    assert "encoder of model" in got.provenance


def test_prune_masks_in_files(tmp_path: Path) -> None:
    model = Model("RNN")
    prune.l1_unstructured(model.head, "weight", amount=0.5)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert torch.equal(hl.read(tmp_path / "m.pt").w_out, model.head.weight_orig * model.head.weight_mask)


def test_ambiguity_asks_for_a_prefix(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        two = nn.ModuleDict(
            {"a": nn.GRU(3, 4), "b": nn.GRU(3, 4), "x": nn.Linear(4, 1), "y": nn.Linear(4, 2)}
        )
    save_file(two.state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match="rnn= must name one of: a, b"):
        hl.read(tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match="readout= must name one of: x, y"):
        hl.read(tmp_path / "m.safetensors", rnn="a")
    with pytest.raises(UnknownNameError, match="unknown rnn prefix"):
        hl.read(tmp_path / "m.safetensors", rnn="c")
    assert hl.read(tmp_path / "m.safetensors", "y", rnn="b").n_outputs == 2


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.zeros(2), "evil": Evil()}, "evil.pt")
    with pytest.raises(FileError, match="refused"):
        hl.read("evil.pt")
    torch.save(nn.GRU(2, 2), "whole.pt")
    with pytest.raises(FileError, match="state_dict"):
        hl.read("whole.pt")
    assert not (tmp_path / "ran").exists()


def test_damaged_missing_and_foreign_files(tmp_path: Path) -> None:
    for name in ("m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(FileError, match="m\\."):
            hl.read(tmp_path / name)
    with pytest.raises(FileError, match="no file"):
        hl.read(tmp_path / "none.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(FileError, match="no state dict"):
        hl.read(tmp_path / "list.pt")
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "linear.safetensors")
    with pytest.raises(UnsupportedModelError, match="no recurrent weights"):
        hl.read(tmp_path / "linear.safetensors")


def test_any_bytes_are_refused_in_one_line(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    whole = tmp_path / "whole.pt"
    torch.save(nn.RNN(2, 3).state_dict(), whole, _use_new_zipfile_serialization=False)
    good = whole.read_bytes()
    file = tmp_path / "damaged.pt"
    cases = [b"", b"junk", b"\x80\x02", *(source.bytes(n) for n in (1, 5, 50, 500))]
    cases += [b"\x80\x02" + source.bytes(20) for _ in range(200)]
    for _ in range(200):
        spot = int(source.integers(len(good) // 2))
        cases.append(good[:spot] + source.bytes(4) + good[spot + 4 :])
    cases += [good[: int(n)] for n in source.integers(len(good), size=50)]
    refused = []
    for case in cases:
        file.write_bytes(case)
        try:
            hl.models.load_stack(file)
        except hl.HoplensError as error:  # nothing else may come out
            refused.append(str(error))
    assert len(refused) > 250
    assert not [line for line in refused if "\n" in line]
