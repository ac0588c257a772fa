"""Shards on disk: written whole or not at all, found again by content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from hoplens.errors import FileError
from hoplens.files import make_folder, write_atomically
from hoplens.settings import Network
from hoplens.study.plan import FORMAT

MARK = "study.json"


class AnyShard(Protocol):
    """What can be run and kept by itself: networks trained as one batch."""

    @property
    def networks(self) -> Sequence[Network]:
        """What is trained, one row of the shard's table each."""
        ...

    @property
    def key(self) -> str:
        """Content hash."""
        ...

    @property
    def label(self) -> str:
        """What it works on."""
        ...


class AnyPlan(Protocol):
    """What fixes the numbers of a study."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def key(self) -> str:
        """Content hash."""
        ...


class ShardStore:
    """A results folder of one study.

    Parameters
    ----------
    folder : Path
        Created if missing.
    plan : AnyPlan
        A folder that holds another study is refused, so that nothing of it is overwritten.

    Raises
    ------
    FileError
        If the folder cannot be written, or holds something else.
    """

    def __init__(self, folder: Path, plan: AnyPlan) -> None:
        self.folder = folder
        self.shards = folder / "shards"
        make_folder(self.shards, "results folder")
        mark = {"format": FORMAT, "plan": plan.name, "key": plan.key}
        found = self._read_mark()
        if found is None:
            write_atomically(folder / MARK, json.dumps(mark, indent=2).encode())
        elif found != mark:
            raise FileError(
                f"{folder} holds another study ({found.get('plan', 'unknown')}, key {found.get('key', '?')}, "
                f"format {found.get('format', '?')}); choose another --out or move that folder away"
            )

    def _read_mark(self) -> dict[str, object] | None:
        path = self.folder / MARK
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise FileError(f"{path} is damaged; move the folder away or choose another --out")
        return found

    def path(self, shard: AnyShard) -> Path:
        """Return where a shard's rows are kept."""
        return self.shards / f"{shard.key}.csv"

    def load(self, shard: AnyShard) -> pd.DataFrame | None:
        """Return a finished shard's rows, or None if it is missing or unreadable (it is then run again)."""
        path = self.path(shard)
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError):
            return None
        return frame if len(frame) == len(shard.networks) else None

    def save(self, shard: AnyShard, frame: pd.DataFrame, maps: dict[str, Tensor]) -> None:
        """Keep a shard's rows and the example hop maps among them."""
        write_atomically(self.maps_path(shard), save_tensors(maps))
        # The rows come last and say that the shard is done. 17 digits: a resumed study must give the very
        # numbers of an undisturbed one.
        write_atomically(self.path(shard), frame.to_csv(index=False, float_format="%.17g").encode())

    def maps_path(self, shard: AnyShard) -> Path:
        """Return where a shard's example hop maps are kept."""
        return self.shards / f"{shard.key}.safetensors"

    def load_maps(self, shard: AnyShard) -> dict[str, Tensor]:
        """Return the example hop maps of a shard by row number, empty if they are missing."""
        try:
            return load_tensors(self.maps_path(shard).read_bytes())
        except (OSError, SafetensorError):
            return {}


__all__ = ["MARK", "AnyPlan", "AnyShard", "ShardStore"]
