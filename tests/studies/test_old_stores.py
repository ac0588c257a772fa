"""Stores of earlier versions stay readable: `stores/format-1` was written before streams were hashed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from places import TESTS

from hoplens.cli.app import main
from hoplens.studies.sweeps import RunStore
from hoplens.studies.sweeps.status import status

OLD = TESTS / "stores" / "format-1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old.store"))


def test_status_tables_and_weights_are_read(old: Path) -> None:
    found = status(old)
    assert (found.name, found.total, found.done) == ("tiny", 12, 12)
    with RunStore(old) as store:
        table = store.networks()
        assert len(table) == 12
        assert table["test_error"].between(0.1, 1.5).all()
        for key in table["key"]:
            assert store.ensemble(key).n_hidden == 8
            assert all(torch.isfinite(t).all() for t in store.tensors(key).values())


def test_resuming_trains_anew_and_keeps_the_old_networks(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunStore(old) as store:
        before = store.networks().set_index("key")["test_error"]
    monkeypatch.setattr("sys.argv", ["hoplens", "sweep", "--resume", "--store", str(old), "--workers", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "12 of 12 networks" in capsys.readouterr().out
    with RunStore(old) as store:
        assert len(store.studies()) == 2
        after = store.networks().set_index("key")["test_error"]
        # as the store of that version has it
        first = store.query("SELECT key, json_extract(metrics, '$.test_mse') AS error FROM networks")
    assert not set(before.index) & set(after.index)
    kept = first.set_index("key")["error"]
    assert (kept[before.index] == before).all()
