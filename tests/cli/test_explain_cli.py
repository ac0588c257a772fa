"""``hoplens explain`` as a user runs it, and its page."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from in_process import hoplens
from torch import nn

import hoplens as hl
from hoplens.models.readers.models import parts_of
from hoplens.reports import explanation as words
from hoplens.reports.explanation import render_page, write_page
from hoplens.reports.partners import acting_together

EVIL = '<script>alert("1")</script>'


@pytest.fixture
def files(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.ModuleDict({"rnn": nn.GRU(3, 6, batch_first=True), "out": nn.Linear(6, 2)})
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1))
    np.savez(
        tmp_path / "data.npz",
        inputs=x.numpy(),
        input_names=["heat", EVIL, "wind"],
        output_names=["no", "yes"],
    )
    return tmp_path, net, x


def test_prints_and_writes_what_the_library_says(files):
    folder, net, x = files
    page = folder / "page.html"
    shown = hoplens(
        "explain",
        str(folder / "net.pt"),
        "--inputs",
        str(folder / "data.npz"),
        "--sample",
        "3",
        "-o",
        str(page),
    )
    assert shown.returncode == 0, shown.stderr
    with torch.no_grad():
        y = net["out"](net["rnn"](x[3:4])[0][:, -1])[0]
    best = int(y.argmax())
    found = hl.explain(
        net["rnn"],
        x[3:4],
        readout=net["out"],
        output=best,
        input_names=["heat", EVIL, "wind"],
        output_names=["no", "yes"],
    )
    text = " ".join(shown.stdout.split())
    assert words.opening(found, 0) in text
    assert f"is {float(y[best]):.4g}, and" in text
    for line in words.lines(found, 0, 10):
        assert words.sentence(line) in text
    together = acting_together(parts_of(net["rnn"], net["out"]), found, 0)
    assert together.rows
    wanted = render_page(found, title="net.pt, sample 3 of data.npz", together=together)
    assert page.read_text() == wanted.replace(found.label, "GRU rnn of net.pt")


def test_the_page_needs_nothing_and_escapes_every_name(files):
    folder, net, x = files
    found = hl.explain(
        net["rnn"], x, readout=net["out"], input_names=[EVIL, "a&b", "c"], output_names=["y", EVIL], output=1
    )
    text = write_page(found, folder / "p.html", sample=2, title=EVIL).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a&amp;b" in text
    links = re.findall(r"""(?:href|src)=["']([^"']*)|url\(([^)]*)\)""", text)
    assert all(a == "data:," or (a or b).startswith("#") for a, b in links)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert f"{float(found.top(1, sample=2)['contribution'][0]):+.3g}" in text
    assert len(text) < 200_000


def test_a_failed_page_leaves_the_old_one(files):
    folder, _, _ = files
    page = folder / "page.html"
    page.write_text("old")
    shown = hoplens(
        "explain",
        str(folder / "net.pt"),
        "--inputs",
        str(folder / "data.npz"),
        "--output",
        "maybe",
        "-o",
        str(page),
    )
    assert shown.returncode == 2
    assert page.read_text() == "old"


def test_outputs_by_name_and_number_and_the_mean_as_baseline(files):
    folder, net, x = files
    start = ("explain", str(folder / "net.pt"), "--inputs", str(folder / "data.npz"))
    named = hoplens(*start, "--output", "yes", "--baseline", "mean")
    assert named.returncode == 0, named.stderr
    assert named.stdout == hoplens(*start, "--output", "1", "--baseline", "mean").stdout
    found = hl.explain(net["rnn"], x, readout=net["out"], output=1, baseline="mean")
    assert f"{float(found.baseline_output[0]):.4g} at the baseline" in " ".join(named.stdout.split())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--sample", "5"), "--sample must lie in 0 .. 4 for the 5 sequences"),
        (("--sample", "-1"), "--sample must be a whole number of at least 0"),
        (("--output", "maybe"), "unknown output 'maybe'; known: no, yes"),
        (("--output", "7"), "output must lie in 0 .. 1 for 2 outputs, got 7"),
        (("--baseline", "median"), "--baseline must be zeros or mean"),
        (("--readout", "head"), "unknown readout prefix 'head'"),
        (("-o", "nowhere/page.html"), "cannot write nowhere/page.html"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(files, change, says):
    folder = files[0]
    shown = hoplens("explain", str(folder / "net.pt"), "--inputs", str(folder / "data.npz"), *change)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert shown.stderr.strip().count("\n") == 0
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"inputs": np.full((2, 3, 3), np.nan)}, "inputs must be finite numbers"),
        ({"inputs": np.zeros((2, 3))}, "of shape (B, L, I)"),
        ({"inputs": np.zeros((2, 3, 4))}, "with I = 3"),
        (
            {"inputs": np.zeros((2, 3, 3)), "output_names": np.zeros(2)},
            "output_names must be a list of texts",
        ),
        ({"inputs": np.zeros((2, 3, 3)), "input_names": ["a"]}, "input_names"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "needs an array called 'inputs'"),
    ],
)
def test_bad_data_are_one_line_and_exit_code_2(files, arrays, says):
    folder = files[0]
    np.savez(folder / "bad.npz", **arrays)
    shown = hoplens("explain", str(folder / "net.pt"), "--inputs", str(folder / "bad.npz"))
    assert shown.returncode == 2
    assert says in shown.stderr
    assert shown.stderr.strip().count("\n") == 0


def test_models_that_cannot_be_explained(files):
    folder, net, _ = files
    data = ("--inputs", str(folder / "data.npz"))
    assert "no file" in hoplens("explain", "nowhere.pt", *data).stderr
    torch.save(net["rnn"].state_dict(), folder / "bare.pt")
    shown = hoplens("explain", str(folder / "bare.pt"), *data)
    assert shown.returncode == 2
    assert "explain needs the read-out" in shown.stderr
    assert "no file" in hoplens("explain", str(folder / "net.pt"), "--inputs", "nowhere.npz").stderr


def test_words_for_nothing_and_for_one_step():
    cell = hl.models.RnnCell(torch.ones(1, 1), torch.zeros(1, 1), nonlinearity="linear")
    x = torch.tensor([[[0.0], [0.0]], [[5.0], [-2.0]]])
    found = hl.explain(cell, x, readout=torch.ones(1, 1))
    assert words.opening(found, 0) == (
        "Output y0 is 0, and 0 at the baseline: no input is credited with anything."
    )
    assert words.timing(found, 0) == "No step is credited with anything."
    assert words.unit_rows(found, 0, 3) == []
    assert "<svg" in render_page(found)
    assert words.timing(found, 1) == "Step 1 alone (the last step) holds 100% of all credits by size."
    assert words.opening(found, 1).startswith("Output y0 is -2, and 0 at the baseline. The change of -2 is")
    assert words.hop_rows(found, 1) == [("2", "0", "-2", "100.0%")]
