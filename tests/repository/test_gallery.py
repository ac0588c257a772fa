"""The scripts of the gallery run, and its page shows every one of them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import matplotlib
import pytest
from places import ROOT

SCRIPTS = sorted((ROOT / "examples" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script: Path, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    written = Path(runpy.run_path(str(script))["main"](str(tmp_path)))
    assert written == tmp_path / f"{script.stem}.svg"
    assert written.read_text(encoding="utf-8").count("<path") > 10
    assert dict(matplotlib.rcParams) == before


def test_page_shows_every_script() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"examples/gallery/(\w+)\.py", page)) == [script.stem for script in SCRIPTS]
    shown = re.findall(r"\((images/[^)]+)\)", page)
    assert sorted(shown) == [f"images/gallery/{script.stem}.svg" for script in SCRIPTS]
    assert all((ROOT / "docs" / picture).is_file() for picture in shown)
