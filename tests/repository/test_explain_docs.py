"""Every Python block of the page on explanations runs, one after the other."""

from __future__ import annotations

import re

from places import ROOT

import hoplens as hl

PAGE = ROOT / "docs" / "explain.md"


def test_python_blocks_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    found, frame = names["found"], names["frame"]
    assert isinstance(found, hl.Explanation)
    assert float(found.relative_gap.max()) < 1e-3
    best = names["pairs"].strongest(16)  # what the page says of rank 1 to 16
    assert set(best.lag) | set(best.other_lag) == {0, 2}
    assert all(
        {a, b} & {"x0", "x1"} and {a, b} & {"x2", "x3"}
        for a, b in zip(best.input, best.other_input, strict=True)
    )
    assert list(frame["step"]) == [0, 5, 10, 15]
    assert (tmp_path / "pathways.gif").stat().st_size > 0
