"""Every Python block of the guides runs, one after the other, as a reader would paste them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from places import ROOT

from hoplens.studies.extensions import kinds

DOCS = ROOT / "docs"
GUIDES = {  # and the least number of blocks
    "reading.md": 4,
    "seeing.md": 4,
    "data.md": 4,
    "gated.md": 2,
    "shrinking.md": 6,
    "pruning.md": 4,
    "export.md": 8,
    "extending.md": 6,
    "statistics.md": 2,
    "scaling.md": 0,
    "sweeps.md": 4,
}


@pytest.fixture(autouse=True)
def _leave_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guide registers ends with it."""
    for registry in kinds.ALL:
        monkeypatch.setattr(registry, "_added", dict(registry._added))
    monkeypatch.setattr("hoplens.studies.extensions.files._sources", {})


@pytest.mark.parametrize("guide", GUIDES)
def test_blocks_run(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= GUIDES[guide]
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, guide, "exec"), names)


@pytest.mark.parametrize("guide", [*GUIDES, "real_examples.md"])
def test_pictures_and_pages_are_there(guide: str) -> None:
    targets = re.findall(r"\[[^\]]*\]\(([^)#]+)\)", (DOCS / guide).read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (DOCS / target).is_file(), target
