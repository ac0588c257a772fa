"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoplens.errors import FileError
from hoplens.files import write_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    assert write_atomically(target, b"one") == target
    write_atomically(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    written = write_atomically(tmp_path / "written", b"")
    assert written.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["missing/a.txt", "folder", "file/a.txt"])
def test_targets_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileError, match="file"):
        write_atomically(tmp_path / target, b"data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space left on device"), FileError), (KeyboardInterrupt(), None)]
)
def test_a_failure_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[Exception] | None
) -> None:
    target = write_atomically(tmp_path / "a.txt", b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(raised or type(error)):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]
