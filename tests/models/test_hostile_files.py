"""Files and names made to harm: one clear error, or pages and tables in which no name acts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import command
from safetensors.torch import load_file, save_file
from size import few
from torch import nn

import hoplens as hl
from hoplens.files import csv_bytes
from hoplens.models.readers.saved import KEY
from hoplens.models.recurrent_model import ModelInfo, describe_model
from hoplens.plots import save_figure
from hoplens.reports import write_network_report
from hoplens.text import for_markdown, for_table

SCRATCH = Path(tempfile.mkdtemp())
SCRIPT = "<script>alert(1)</script>"
NAMES = [
    f"{SCRIPT}\x01\x0b\x1b[31m",
    '=HYPERLINK("http://x.y") $\\frac{$ & \'"]]> </script><img src=x onerror=alert(1)>',
    "a](javascript:x) `b` **c** | d\n# e \u202e",
]
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
QUICK = settings(max_examples=few(25), deadline=None, suppress_health_check=list(HealthCheck))


def model_of(core: nn.Module | None = None, **info: object) -> hl.RecurrentModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hl.RecurrentModel(core or nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), ModelInfo(**info))


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """A model and data whose names are all hostile."""
    found = {"model": SCRATCH / f"{NAMES[1].replace('/', '_')[:60]}.safetensors", "data": SCRATCH / "d.npz"}
    hl.save(
        model_of(input_names=tuple(NAMES), output_names=tuple(NAMES[:2]), assumed=NAMES[2]), found["model"]
    )
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(12, 5, 3)).astype(np.float32)
    np.savez(
        found["data"],
        inputs=inputs,
        targets=draw.integers(0, 2, 12),
        input_names=NAMES,
        output_names=NAMES[:2],
    )
    return found


class Page(HTMLParser):
    """Scripts, handlers and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.odd: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "href") and not (value or "").startswith(("#", "data:"))
            ):
                self.odd.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def check_page(text: str) -> None:
    assert not CONTROL.search(re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    page = Page(text)
    assert page.odd == []
    assert not any("alert(1)" in script and not script.startswith("{") for script in page.scripts)
    for script in page.scripts:
        if script.startswith("{"):
            json.loads(script)
    for picture in re.findall(r"<svg.*?</svg>", re.sub(r"<script.*?</script>", "", text, flags=re.S), re.S):
        ElementTree.fromstring(re.sub("&nbsp;", " ", picture))


def test_every_page_of_a_model_with_hostile_names(files, tmp_path, capsys):
    model, data = files["model"], files["data"]
    assert command("explain", model, "--inputs", data, "-o", tmp_path / "explain.html") == 0
    assert command("report", model, "--inputs", data, "-o", tmp_path / "report.html") == 0
    assert command("analyze", model, "--inputs", data, "--out", tmp_path / "analysis") == 0
    given = ("--data", data, "--test", data, "--steps", 1, "--quick", "--max-loss", 1, "--seconds", 1e-6)
    pytest.importorskip("onnxruntime")
    assert command("compress", model, *given, "-o", tmp_path / "small") in (0, 3)  # 3: a limit is missed
    shown = capsys.readouterr()
    assert not CONTROL.search(re.sub(r"\x1b\[[0-9;?]*[mKhlA]", "", shown.out).replace("\r", ""))
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) == 4
    for page in pages:
        check_page(page.read_text(encoding="utf-8"))
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") in (tmp_path / "explain.html").read_text()
    ElementTree.parse(tmp_path / "small" / "front.svg")
    card = (tmp_path / "small" / "card.md").read_text()
    assert not CONTROL.search(card)
    assert not re.search(
        r"(?<!\\)[<`]|(?<!\\)\]\(j", re.sub(r"```.*?```|`candidates.csv`", "", card, flags=re.S)
    )
    tables = sorted(tmp_path.rglob("*.csv"))
    assert tables
    for table in tables:
        assert not CONTROL.search(table.read_text())
        for row in csv.reader(io.StringIO(table.read_text())):
            assert not any(re.match(r"\s*[=+@]", cell) for cell in row)


def test_the_names_of_a_graph_act_nowhere(tmp_path):
    """A model's names do not reach the page of a network, those of a graph do."""
    numbers = torch.Generator().manual_seed(0)
    w = [torch.rand(shape, generator=numbers) for shape in ((3, 3), (3, 3), (2, 3))]
    names = {"input_names": NAMES, "output_names": NAMES[:2], "hidden_names": NAMES}
    modules = {"input_modules": NAMES, "output_modules": NAMES[:2], "hidden_modules": NAMES}
    found = hl.analyze(hl.Pathways(*w, **names, **modules), horizon=3)
    text = write_network_report(found, tmp_path / "page.html", title=NAMES[0]).read_text(encoding="utf-8")
    check_page(text)
    assert SCRIPT not in text
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") in text
    found.write(tmp_path / "tables")
    for table in (tmp_path / "tables").glob("*.csv"):
        assert not CONTROL.search(table.read_text())
    assert not CONTROL.search((tmp_path / "tables" / "summary.txt").read_text())
    for name, figure in found.figures().items():
        ElementTree.parse(save_figure(figure, tmp_path / f"{name}.svg"))


@given(st.text(st.characters(codec=None), max_size=60))
@settings(QUICK, max_examples=few(200))
def test_text_for_markdown_acts_nowhere(text):
    shown = str(for_markdown(text))
    bare = re.sub(r"\\[\\`*_~<>|$&@#+=\-\[\]!:.)]", "", shown)
    assert not re.search(r"[`*_~<>|$&@]|!\[|\][\[(:]|://|www\.", bare, re.IGNORECASE)
    assert not re.match(r"[-+]([\s+-]|$)|[=#\[:]|\d+[.)](\s|$)", shown)
    assert not CONTROL.search(shown)
    assert len(shown.splitlines()) <= 1


@given(st.text(max_size=20))
@settings(QUICK, max_examples=few(200))
def test_text_for_tables_is_no_formula_and_comes_back(text):
    import pandas as pd

    shown = for_table(text)
    frame = pd.DataFrame({"name": [text, "x"], "number": [-1.5, 0.1]})
    back = list(csv.DictReader(io.StringIO(csv_bytes(frame).decode())))
    assert back[0] == {"name": shown, "number": "-1.5"}
    assert not re.match(r"\s*[=+@-]", shown)
    assert not CONTROL.search(shown)


# -- paths


def places(folder: Path) -> dict[str, Path | str]:
    """What is no file that can be read."""
    (folder / "folder").mkdir()
    (folder / "file").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    found = {name: folder / name for name in ("folder", "pipe", "link", "loop")}
    return found | {"device": "/dev/zero", "long": "x" * 5000, "nul": "a\0b", "below": folder / "file" / "x"}


READERS = {
    "read": hl.read,
    "load": hl.load,
    "load_model": hl.models.load_model,
    "load_stack": hl.models.load_stack,
    "analyze": hl.analyze,
    "explain": lambda path: hl.explain(path, torch.zeros(1, 2, 3)),
    "read_ts": hl.data.read_ts,
}


def test_what_is_no_file_is_refused_by_every_reader(tmp_path):
    for place in places(tmp_path).values():
        for call in READERS.values():
            with pytest.raises(hl.HoplensError) as caught:
                call(place)
            assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_by_every_command(files, tmp_path, capsys):
    model, data = files["model"], files["data"]
    found = places(tmp_path)
    del found["nul"]  # no argument of a process can hold one
    for place in found.values():
        for arguments in (
            ("analyze", place),
            ("analyze", model, "--inputs", place),
            ("report", place, "-o", tmp_path / "r.html"),
            ("report", model, "--inputs", place, "-o", tmp_path / "r.html"),
            ("explain", place, "--inputs", data),
            ("explain", model, "--inputs", place),
            ("export", place, "-o", tmp_path / "x.onnx"),
            ("export", model, "--data", place, "-o", tmp_path / "x.onnx"),
            ("compress", place, "--data", data, "--test", data, "-o", tmp_path / "c"),
            ("compress", model, "--data", place, "--test", data, "-o", tmp_path / "c"),
            ("compress", model, "--data", data, "--test", place, "-o", tmp_path / "c"),
        ):
            refused(capsys, arguments)


@pytest.mark.parametrize("name", ["long", "below"])
def test_what_cannot_be_written_is_refused(files, tmp_path, capsys, name):
    model, data, place = files["model"], files["data"], places(tmp_path)[name]
    for arguments in (
        ("analyze", model, "--out", place),
        ("report", model, "-o", place),
        ("explain", model, "--inputs", data, "-o", place),
        ("export", model, "--format", "onnx", "-o", place),
        ("compress", model, "--data", data, "--test", data, "--steps", 0, "--quick", "-o", place),
        ("train", "averaging", "--seeds", 1, "--hidden", 2, "--steps", 1, "--out", place),
    ):
        refused(capsys, arguments)


def refused(capsys, arguments):
    assert command(*arguments) == 2, arguments
    said = capsys.readouterr().err.strip()
    assert said, arguments
    assert "\n" not in said, arguments
    assert "Traceback" not in said


# -- sizes that are only said


def claim(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def test_arrays_that_claim_more_than_they_hold(files, tmp_path, capsys):
    (tmp_path / "claim.npy").write_bytes(claim((40_000, 40_000, 1)))
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("inputs.npy", claim((40_000, 40_000, 1)))
    for name in ("claim.npy", "claim.npz"):
        for arguments in (
            ("analyze", files["model"], "--inputs", tmp_path / name),
            ("explain", files["model"], "--inputs", tmp_path / name),
            ("export", files["model"], "--data", tmp_path / name, "-o", tmp_path / "x.onnx"),
        ):
            refused(capsys, arguments)


def test_archives_that_unpack_to_more_than_the_memory(monkeypatch, tmp_path, capsys, files):
    np.savez_compressed(tmp_path / "bomb.npz", inputs=np.zeros((1, 1 << 20, 3), np.float32))
    monkeypatch.setattr("hoplens.memory.memory_of", lambda device="cpu": 1 << 20)
    refused(capsys, ("analyze", files["model"], "--inputs", tmp_path / "bomb.npz"))


@pytest.mark.parametrize("key", ["hidden_size", "input_size", "num_layers", "n_outputs", "proj_size"])
@pytest.mark.parametrize("core", ["lstm", "leaky"])
def test_descriptions_that_claim_more_than_the_weights(key, core, tmp_path):
    made = model_of(nn.LSTM(3, 4, batch_first=True) if core == "lstm" else hl.LeakyRNN(3, 4, 0.5))
    told = describe_model(made) | {key: 10**9}
    if core == "leaky" and key in ("num_layers", "proj_size"):
        told["core"] = "rnn"
    save_file(made.state_dict(), tmp_path / "m.safetensors", metadata={KEY: json.dumps(told)})
    with pytest.raises(hl.errors.FileError, match="does not describe its weights"):
        hl.load(tmp_path / "m.safetensors")


def test_bare_weights_whose_shapes_claim_more_than_they_hold(tmp_path):
    wide = torch.zeros(1).expand(100_000, 100_000)
    torch.save({"weight_hh_l0": wide, "weight_ih_l0": torch.zeros(100_000, 1)}, tmp_path / "wide.pt")
    with pytest.raises(hl.errors.FileError, match="holds less"):
        hl.read(tmp_path / "wide.pt")
    state = {"weight_hh_l0": torch.zeros(3000, 3000), "weight_ih_l0": torch.zeros(1, 10**6)}
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(hl.HoplensError):
        hl.read(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    "option",
    [("--hidden", 2_000_000), ("--length", 10**9), ("--seeds", 10**9), ("--steps", 10**13), ("--lag", 10**9)],
)
def test_training_that_cannot_fit(option, capsys):
    signal = ("--signal", "sparse") if option[0] == "--lag" else ()
    refused(capsys, ("train", "averaging", *option, *signal))


@pytest.mark.parametrize("name", ["analyze", "report"])
def test_a_horizon_that_cannot_fit(name, files, tmp_path, capsys):
    out = ("-o", tmp_path / "r.html") if name == "report" else ()
    refused(capsys, (name, files["model"], "--horizon", 10**9, *out))
    refused(capsys, (name, "celegans", "--horizon", 10**9, *out))


# -- files at random

BASE = {
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "rnn": lambda: nn.RNN(3, 4, batch_first=True),
    "leaky": lambda: hl.LeakyRNN(3, 4, 0.5),
}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 10**10), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "info"]), inner, max_size=2)
    ),
    max_leaves=4,
)
INFO = ["every_step", "window", "input_names", "output_names", "input_mean", "input_scale", "assumed", "x"]


@st.composite
def model_files(draw) -> bytes:
    """The bytes of a file of a model, changed somewhere."""
    made = model_of(BASE[draw(st.sampled_from(sorted(BASE)))]())
    path = SCRATCH / "made"
    if draw(st.booleans()):
        torch.save(made.state_dict(), path)
    else:
        told = describe_model(made)
        change = draw(st.sampled_from(["none", "key", "info", "all"]))
        if change == "key":
            told[draw(st.sampled_from(sorted(told)))] = draw(JSON)
        elif change == "info":
            told["info"] = told["info"] | {draw(st.sampled_from(INFO)): draw(JSON)}
        whole = draw(JSON) if change == "all" else told
        save_file(made.state_dict(), path, metadata={KEY: json.dumps(whole)} if draw(st.booleans()) else None)
        if draw(st.booleans()):
            state = load_file(path)
            name = draw(st.sampled_from(sorted(state)))
            shape = draw(st.lists(st.integers(0, 5), max_size=3))
            state[name] = torch.ones(
                shape, dtype=draw(st.sampled_from([torch.float32, torch.int8, torch.bool]))
            )
            save_file(state, path, metadata={KEY: json.dumps(whole)})
    return damage(draw, path.read_bytes())


def damage(draw, data: bytes) -> bytes:
    how = draw(st.sampled_from(["none", "none", "cut", "bits"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "bits":
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    return data


@st.composite
def input_files(draw) -> bytes:
    """The bytes of an .npz file of inputs of any kind."""
    dtype = draw(st.sampled_from(["f4", "f8", "i8", "?", "c8", "U3", "O", "f2", "u1"]))
    shape = draw(st.one_of(st.just((4, 5, 3)), st.lists(st.integers(0, 4), max_size=4).map(tuple)))
    values = np.zeros(shape, dtype=dtype)
    if dtype in ("f4", "f8") and values.size:
        values.flat[0] = draw(st.sampled_from([0.5, np.nan, np.inf, 1e38]))
    arrays = {draw(st.sampled_from(["inputs", "inputs", "x", "in\x1bputs"])): values}
    if draw(st.booleans()):
        arrays["input_names"] = np.array(draw(st.lists(st.text(max_size=8), max_size=4)), dtype="U8")
    if draw(st.booleans()):
        arrays["targets"] = np.zeros(draw(st.integers(0, 5)), dtype=draw(st.sampled_from(["f4", "i8", "U2"])))
    written = io.BytesIO()
    np.savez(written, **arrays)
    return damage(draw, written.getvalue())


def only_one_line(capsys, *arguments: object) -> None:
    capsys.readouterr()
    code = command(*arguments)
    shown = capsys.readouterr()
    assert code in (0, 2)
    if code:
        assert len(shown.err.strip().splitlines()) == 1
    assert not CONTROL.search(shown.err + shown.out)


@given(model=model_files(), inputs=input_files(), first=st.booleans())
@QUICK
def test_files_at_random(capsys, files, model, inputs, first):
    odd, data, page = SCRATCH / "odd.file", SCRATCH / "odd.npz", SCRATCH / "page.html"
    odd.write_bytes(model)
    data.write_bytes(inputs)
    page.unlink(missing_ok=True)
    used = (odd, files["data"]) if first else (files["model"], data)
    only_one_line(capsys, "explain", used[0], "--inputs", used[1], "-o", page)
    if page.exists():
        check_page(page.read_text())
        page.unlink()
    only_one_line(capsys, "report", used[0], "--inputs", used[1], "--horizon", 3, "-o", page)
    if page.exists():
        check_page(page.read_text())
    only_one_line(capsys, "analyze", odd, "--horizon", 3)
    if first:
        only_one_line(capsys, "export", odd, "--format", "onnx", "-o", SCRATCH / "x.onnx")
