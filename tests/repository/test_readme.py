"""Every Python block of the README runs, one after the other, as a reader would paste them."""

from __future__ import annotations

import re

import torch
from places import ROOT

import hoplens as hl

README = ROOT / "README.md"


def test_python_blocks_run(monkeypatch):
    train = hl.train
    monkeypatch.setattr(hl, "train", lambda *args, **options: train(*args, **options, steps=5))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {"task_loss": torch.zeros(())}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(block, names)
    loss, result, found = names["loss"], names["result"], names["found"]
    assert isinstance(found, hl.Explanation)
    assert float(found.relative_gap.max()) < 1e-3  # the promise, relative to a difference that may be small
    assert isinstance(loss, torch.Tensor)
    assert loss.requires_grad
    assert isinstance(result, hl.TrainingResult)
    assert len(result.metrics) == 8


def test_pictures_are_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text()):
        assert (README.parent / path).is_file()
