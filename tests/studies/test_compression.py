"""``hoplens compress``: a whole run, resumed runs, other forms of data, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import hoplens as hl
from hoplens import threads
from hoplens.cli.app import app
from hoplens.compress.tuning import fine_tune, losses, score
from hoplens.export.exporters import EXPORTERS
from hoplens.studies.compression import candidates, search
from hoplens.studies.compression.candidates import Candidate, TuningSettings
from hoplens.studies.compression.data import halves, load_split
from hoplens.studies.compression.result import _interval, measure
from hoplens.studies.compression.search import CandidateRecord, CandidateSearch, Choice, choose, run_file

ONNX = EXPORTERS.get("onnx")
QUICK = {"steps": 6, "lr": 1e-3, "batch": 16, "seed": 0, "seconds": 0.01}


@pytest.fixture(autouse=True)
def _own_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def few(monkeypatch):
    """A few candidates of every kind, so that a run takes seconds."""
    monkeypatch.setattr(candidates, "UNITS", (0.5,))
    monkeypatch.setattr(candidates, "WEIGHTS", (0.8,))
    monkeypatch.setattr(candidates, "FORMS", ("float32", "int8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compress")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(240, 6, 3, generator=draw)
    y = (x[:, -2:].sum((1, 2)) > 0).long()
    names = {"input_names": ["a", "b", "c"], "output_names": ["low", "high"], "input_mean": np.ones(3)}
    np.savez(folder / "train.npz", inputs=x[:160].numpy(), targets=y[:160].numpy(), **names)
    np.savez(folder / "test.npz", inputs=x[160:].numpy(), targets=y[160:].numpy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hl.RecurrentModel(nn.GRU(3, 24, batch_first=True), nn.Linear(24, 2))
    fine_tune(model, list(model.parameters()), x[:160], y[:160], steps=150, lr=1e-2)
    hl.save(model, folder / "model.safetensors")
    torch.save(model.state_dict(), folder / "model.pt")
    return folder


def compress(files, out, **options):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    from hoplens.cli.commands.compress import run_compress

    given = {
        "data": files / "train.npz",
        "test": files / "test.npz",
        "target_size": 0.5,
        "max_loss": 0.1,
        "out": out,
        "rnn": None,
        "readout": None,
        "nonlinearity": None,
        **QUICK,
        **options,
    }
    try:
        run_compress(console, str(given.pop("model", files / "model.safetensors")), **given)
    finally:
        console.file.close()
    return " ".join(console.export_text().split())


def test_a_whole_run_writes_what_it_measured(files, few, tmp_path):
    out = tmp_path / "out"
    said = compress(files, out)
    names = {"model.onnx", "model.safetensors", "model.pt", "card.md", "card.html", "front.svg"}
    assert names | {"candidates.csv", "compress.json", "candidates"} <= {path.name for path in out.iterdir()}
    _, report = halves(load_split(files / "test.npz"), 0)
    outputs = run_file(out / "model.onnx", report, ONNX)
    model = hl.load(out / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(report.inputs), atol=1e-5, rtol=0)
    card = (out / "card.md").read_text()
    after = f"{score(outputs, report.targets):.4f}"
    assert f"accuracy (n = {len(report)}, held back) |" in card
    assert f"| {after} | |" in card
    assert after in said
    given = (out / "candidates.csv").read_text().splitlines()[1].split(",")
    assert given[0] == "as given"
    size = (out / "model.onnx").stat().st_size
    assert f"| ONNX file | {int(given[3]):,} bytes | {size:,} bytes | {size / int(given[3]):.2f} |" in card
    table = pd.read_csv(out / "candidates.csv")
    chosen = table[table["chosen"]].iloc[0]
    assert f"{chosen['size']:.1%} of the given model's, limit 50.0%: met." in card
    assert "The sequences of test.npz were halved at random by seed 0." in card
    assert f"the second half, {len(report)} sequences" in card
    assert after in (out / "card.html").read_text()
    assert "<script" not in (out / "card.html").read_text()
    assert model.info.input_names == ("a", "b", "c")
    assert model.info.input_mean == (1.0, 1.0, 1.0)


def test_card_and_table_tell_one_latency_and_every_form_has_its_own(files, few, tmp_path):
    out = tmp_path / "out"
    said = compress(files, out)
    table = pd.read_csv(out / "candidates.csv")
    given, chosen = table.iloc[0]["ms"], table[table["chosen"]].iloc[0]["ms"]
    label = EXPORTERS.get(table[table["chosen"]].iloc[0]["format"]).label
    row = f"| one sequence, {label} file | {given:.3g} ms | {chosen:.3g} ms | {chosen / given:.2f} |"
    assert row in (out / "card.md").read_text()
    assert table["ms"].nunique() > len(table) / 2  # two may tie: a clock has a resolution
    done = [part for part in said.split() if part == "candidates:"]
    assert len(done) == len({name.split(", as ")[0] for name in table["name"]})  # a log shows how far it is
    with threads.threads(2):
        compress(files, tmp_path / "other", quick=True)
        assert torch.get_num_threads() == 2


def test_every_format_is_a_candidate_and_nothing_is_trained_twice(files, few, tmp_path, monkeypatch):
    asked, quantise = [], search.quantise_stage

    def counted(stage, candidate, *more):
        asked.append(candidate)
        return quantise(stage, candidate, *more)

    monkeypatch.setattr(search, "quantise_stage", counted)
    kept = search_in(files, tmp_path / "out")
    records = kept.run()
    integers = [one for one in records if one.format == "int8"]
    assert len(asked) == len(set(asked)) == len(integers)
    first = next(one for one in integers if one.candidate == Candidate(form="int8"))
    assert first.name == "int8 weights, as ONNX with integer products"
    outputs = run_file(kept.path(first), kept.choose, EXPORTERS.get("int8"))
    assert first.score == pytest.approx(score(outputs, kept.choose.targets))
    choice = Choice(first, True, "by hand")
    result = measure(kept, records, choice, kept.choose, seconds=0.01)
    assert len(asked) == len(integers)  # a chosen one is written and measured as it was made
    assert result.score_after == pytest.approx(first.score)
    assert set(result.extra_scores) == {"onnx"}
    assert list(result.table[result.table["chosen"]]["name"]) == [first.name]


def test_a_quick_search_has_at_most_ten_candidates():
    tried = list(candidates.all_candidates([None, 25, 13], quick=True))
    assert len(tried) == len(set(tried)) == 10
    assert all(candidate.stage in tried for candidate in tried)


def test_the_card_tells_how_to_run_every_file(files, few, tmp_path, monkeypatch):
    out = tmp_path / "out"
    compress(files, out, target_size=1.0, max_loss=1.0)
    monkeypatch.chdir(out)
    _, report = halves(load_split(files / "test.npz"), 0)
    wanted = hl.load("model.safetensors")(report.inputs).detach()
    blocks = re.findall(r"```python\n(.*?)```", Path("card.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == len(list(out.glob("model*")))
    for block in blocks:
        assert len(block.strip().splitlines()) <= 6
        space = {"inputs": report.inputs}
        exec(block, space)
        found = torch.as_tensor(space["outputs"]).detach()
        tolerance = 1e-5 if "int8.onnx" not in block else 0.1 * float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


def search_in(files, out, steps=6):
    parts = halves(load_split(files / "test.npz"), 0)
    model = hl.load(files / "model.safetensors")
    return CandidateSearch(
        model, load_split(files / "train.npz"), *parts, TuningSettings(steps, batch=16), out
    )


def contents(out):
    return {p.relative_to(out): p.read_bytes() for p in (out / "candidates").glob("*/*")}


def test_an_interrupted_search_goes_on_and_ends_as_an_undisturbed_one(files, few, tmp_path, monkeypatch):
    whole = search_in(files, tmp_path / "whole").run()
    make, done = CandidateSearch._make, []

    def interrupted(self, candidate):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(candidate)
        return make(self, candidate)

    monkeypatch.setattr(CandidateSearch, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_in(files, tmp_path / "cut").run()
    places = sorted((tmp_path / "cut" / "candidates").iterdir())
    assert len(places) == 4
    (places[0] / "records.json").write_text("{")  # damaged: made anew
    (places[1] / "model.onnx").write_bytes(b"")
    done.clear()
    monkeypatch.setattr(
        CandidateSearch, "_make", lambda self, candidate: (done.append(candidate), make(self, candidate))[1]
    )
    assert search_in(files, tmp_path / "cut").run() == whole
    count = len({one.candidate for one in whole})
    assert len(done) == count - 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    search_in(files, tmp_path / "cut").run()
    assert len(done) == count - 2  # nothing is made twice


def test_an_interrupted_command_says_what_is_kept(files, few, tmp_path, monkeypatch):
    make = CandidateSearch._make

    def interrupted(self, candidate):
        if candidate.form == "int8":
            raise KeyboardInterrupt
        return make(self, candidate)

    monkeypatch.setattr(CandidateSearch, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compress(files, tmp_path / "out")
    assert len(list((tmp_path / "out" / "candidates").iterdir())) == 1
    assert not list((tmp_path / "out").glob("model*"))
    monkeypatch.setattr(CandidateSearch, "_make", make)
    assert re.search(r"1 of \d+ candidates are there from an earlier run", compress(files, tmp_path / "out"))


def test_what_cannot_be_met_is_said_and_the_best_is_written(files, few, tmp_path):
    said = compress(files, tmp_path / "out", target_size=0.001, max_loss=0.0)
    assert "limit 0.1%: not met." in said
    assert "No candidate is within both limits: the smallest has" in said
    assert (tmp_path / "out" / "model.onnx").is_file()
    card = (tmp_path / "out" / "card.md").read_text()
    assert "No candidate is within both limits" in card


def record(name_of, n_bytes, loss, multiplications, doubt=0.0):
    return CandidateRecord(name_of, "onnx", n_bytes, 1, 1, multiplications, 0.9 - loss, doubt)


def test_the_choice_is_the_cheapest_within_the_limits_and_else_the_nearest():
    given = record(Candidate(), 1000, 0.0, 100)
    small = record(Candidate(form="int8"), 240, 0.005, 100)
    cheap = record(Candidate(None, "unit", 0.5), 200, 0.009, 40)
    doubtful = record(Candidate(None, "unit", 0.75), 100, 0.009, 20, doubt=0.005)
    broken = record(Candidate(None, "unit", 0.9), 50, 0.5, 10)
    everything = [given, small, cheap, doubtful, broken]
    assert choose(everything, 0.25, 0.01).record == cheap
    assert choose(everything, 0.25, 0.01).met
    assert choose([given, doubtful, broken], 0.25, 0.01).record == doubtful  # better than nothing
    missed = choose([given, small, broken], 0.25, 0.001)
    assert not missed.met
    assert missed.record == small
    assert "best of at most 25% loses 0.0050 (int8 weights)" in missed.why
    assert "smallest that loses at most 0.001 has 100.0% (as given)" in missed.why
    missed = choose(everything, 0.01, 0.01)
    assert "the smallest has 5.0% of the bytes (90% of units removed)" in missed.why


def test_a_candidate_comes_from_its_content(files, few, tmp_path):
    model = hl.load(files / "model.safetensors")
    train, test = load_split(files / "train.npz"), load_split(files / "test.npz")
    parts = halves(test, 0)
    places = set()
    other = replace(train, inputs=train.inputs + 1e-3)
    changed = hl.load(files / "model.safetensors")
    with torch.no_grad():
        changed.readout.bias[0] += 1e-3
    for own, data, settings in [
        (model, train, TuningSettings(6)),
        (model, train, TuningSettings(7)),
        (model, train, TuningSettings(6, seed=1)),
        (model, other, TuningSettings(6)),
        (changed, train, TuningSettings(6)),
    ]:
        found = CandidateSearch(own, data, *parts, settings, tmp_path / "out")
        places.add(found.place(Candidate()))
    assert len(places) == 5


CORES = {
    "leaky": lambda: hl.LeakyRNN(3, 8, 0.5),
    "lstm both ways": lambda: nn.LSTM(3, 8, batch_first=True, bidirectional=True),
    "stack": lambda: nn.RNN(3, 8, 2, batch_first=True),
}


@pytest.mark.parametrize(
    ("kind", "form"),
    [("leaky", "class"), ("stack", "step class"), ("leaky", "values"), ("lstm both ways", "step values")],
)
def test_other_networks_and_forms_of_targets(kind, form, few, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "FORMS", ("float32", "int4"))
    core = CORES[kind]()
    model = hl.RecurrentModel(core, nn.Linear(8 * (2 if core.bidirectional else 1), 2))
    x = torch.randn(24, 5, 3)
    y = {
        "class": (x[:, -1, 0] > 0).long(),
        "step class": (x[..., 0] > 0).long(),
        "values": x[:, -1, :2],
        "step values": x[..., :2],
    }[form]
    lengths = torch.randint(2, 6, (24,))
    brought = {} if core.bidirectional or form == "step values" else {"lengths": lengths.numpy()}
    np.savez(tmp_path / "d.npz", inputs=x.numpy(), targets=y.numpy(), **brought)
    hl.save(model, tmp_path / "m.safetensors")
    out = tmp_path / "out"
    files = {"data": tmp_path / "d.npz", "test": tmp_path / "d.npz", "model": tmp_path / "m.safetensors"}
    said = compress(tmp_path, out, **files, target_size=0.8, max_loss=5.0, steps=2)
    assert ("accuracy" if "class" in form else "explained variance") in said
    split = load_split(tmp_path / "d.npz")
    written = hl.load(out / "model.safetensors")
    assert written.info.every_step == form.startswith("step")
    warned = "sequences differ in length" in (out / "card.md").read_text()
    assert warned == (bool(brought) and not form.startswith("step"))
    with torch.no_grad():
        wanted = written(split.inputs, split.lengths if brought else None)
    found = run_file(out / "model.onnx", split, ONNX)
    if wanted.dim() == 3:
        wanted = torch.where(split.mask[..., None], wanted, 0.0)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_losses_add_up_to_the_score():
    outputs = torch.randn(9, 4, 3)
    classes = torch.randint(0, 3, (9, 4))
    classes[2, 1:] = -100
    for targets in (classes, torch.randn(9, 4, 3)):
        assert 1 - float(losses(outputs, targets).mean()) == pytest.approx(score(outputs, targets), abs=1e-6)
    last = outputs[:, 0], classes[:, 0]
    assert 1 - float(losses(*last).mean()) == pytest.approx(score(*last), abs=1e-12)


def test_an_interval_never_claims_certainty():
    assert _interval(torch.zeros(300)).high == pytest.approx(3 / 300, rel=0.01)  # the rule of three
    found = _interval(torch.tensor([0.0, 1.0, 0.0, 0.0, -1.0, 1.0] * 20))
    assert found.mean == pytest.approx(1 / 6)
    assert found.low < found.mean < found.high


def test_the_figure_shows_every_candidate(tmp_path):
    from hoplens.plots import plot_compression

    rows = {
        "form": ["float32", "int8", "int8"],
        "size": [1.0, 0.3, 0.2],
        "ms": [0.5, 0.4, 0.3],
        "score": [0.9, 0.91, 0.8],
        "chosen": [False, True, False],
    }
    left, right = plot_compression(pd.DataFrame(rows), target_size=0.25).axes
    for ax, column in ((left, "size"), (right, "ms")):
        shown = {tuple(np.round(p, 6)) for c in ax.collections for p in c.get_offsets()}
        assert shown == set(zip(rows[column], rows["score"], strict=True))
    assert [line for line in left.lines if list(line.get_xdata()) == [0.25, 0.25]]
    with pytest.raises(hl.errors.UnknownNameError, match="chosen"):
        plot_compression(pd.DataFrame(rows).drop(columns="chosen"))


def write(folder, name, **arrays):
    np.savez(folder / name, **arrays)
    return folder / name


def test_bad_requests_are_one_line_each(files, few, tmp_path):
    x, y = np.zeros((8, 4, 3), np.float32), np.arange(8) % 2
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((files / "model.safetensors").read_bytes()[:200])
    later = tmp_path / "later.safetensors"
    later.write_bytes((files / "model.safetensors").read_bytes().replace(b'format\\": 1', b'format\\": 9'))

    def data(name, **arrays):
        return {"data": write(tmp_path, name, **arrays)}

    diverged = tmp_path / "diverged.safetensors"
    broken = hl.load(files / "model.safetensors")
    with torch.no_grad():
        broken.core.weight_hh_l0[0, 0] = torch.nan
    hl.save(broken, diverged)
    misfit = tmp_path / "misfit.safetensors"
    described = (files / "model.safetensors").read_bytes()
    misfit.write_bytes(described.replace(b'hidden_size\\": 24', b'hidden_size\\": 23'))
    cases = [
        ({"model": tmp_path / "no.pt"}, "no file"),
        ({"model": diverged}, "NaN or infinite"),
        ({"model": misfit}, "does not describe its weights"),
        (data("values.npz", inputs=x, targets=np.eye(2)[y]), "both have classes"),
        ({"model": cut}, "cannot read"),
        ({"model": later}, "format 9"),
        ({"data": tmp_path / "no.npz"}, "no file"),
        ({"test": tmp_path / "junk.npz"}, "cannot read"),
        (data("a.npz", inputs=x), "'targets'"),
        (data("b.npz", inputs=x, targets=y[:5]), "one row for each of the 8"),
        (data("c.npz", inputs=x, targets=y + 1), "classes must lie in 0 .. 1"),
        (data("d.npz", inputs=x[..., :2], targets=y), "the model takes 3 inputs"),
        (data("e.npz", inputs=x, targets=np.zeros((8, 5))), "gives 2 values"),
        (data("f.npz", inputs=x * np.nan, targets=y), "finite numbers"),
        (data("g.npz", inputs=x, targets=np.full(8, np.nan)), "targets must be finite"),
        (data("h.npz", inputs=x, targets=y, lengths=np.zeros(8, int)), "lengths must lie in"),
        (data("i.npz", inputs=x, targets=y, lengths=np.ones(3, int)), "8 whole numbers"),
        (data("j.npz", inputs=x[:2], targets=y[:2]), "at least 4"),
        (data("k.npz", inputs=x, targets=np.zeros((8, 4), int)), "both have targets"),
        (data("l.npz", inputs=x, targets=y, input_names=["a"]), "must have 3 entries"),
        (data("m.npz", inputs=x, targets=np.array(["a"] * 8)), "targets must be numbers"),
        (data("n.npz", inputs=x, targets=np.zeros((8, 2, 2, 2))), "targets must be classes"),
        ({"target_size": 0}, "--target-size must be"),
        ({"target_size": 1.5}, "--target-size must be"),
        ({"max_loss": -1}, "--max-loss must be"),
        ({"steps": -1}, "--steps must be"),
        ({"batch": 0}, "--batch must be"),
        ({"out": Path("/dev/null/x")}, "cannot make the results folder"),
        ({"out": tmp_path / "full"}, "holds other files"),
        ({"model": files / "model.pt", "rnn": "encoder"}, "unknown rnn prefix"),
    ]
    for options, says in cases:
        with pytest.raises(hl.HoplensError) as caught:
            compress(files, **{"out": tmp_path / "out", **options})
        assert says in str(caught.value), options
        assert "\n" not in str(caught.value), options
    assert (tmp_path / "full" / "thesis.tex").read_text() == "mine"
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_full_disk_is_one_line_and_leaves_no_half_files(files, few, tmp_path, monkeypatch):
    written = []

    def full(path, data):
        written.append(path)
        if len(written) == 6:
            raise OSError(28, "No space left on device", str(path))
        from hoplens.files import write_atomically

        return write_atomically(path, data)

    monkeypatch.setattr(search, "write_atomically", full)
    with pytest.raises(hl.errors.FileError, match="No space left on device") as caught:
        compress(files, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("model*"))
    monkeypatch.undo()


def test_the_command_takes_its_options(files, few, tmp_path):
    arguments = ["compress", str(files / "model.pt"), "--data", str(files / "train.npz")]
    arguments += ["--test", str(files / "test.npz"), "--target-size", "0.6", "--max-loss", "0.2"]
    arguments += ["-o", str(tmp_path / "out"), "--steps", "3", "--seconds", "0.01"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    assert "limit 60.0%" in done.output
    missed = CliRunner().invoke(app, [*arguments, "--target-size", "0.001"])  # the last of two counts
    assert missed.exit_code == 3
    assert "limit 0.1%: not met" in missed.output
    assert (tmp_path / "out" / "card.md").is_file()
    records = [json.loads(p.read_text()) for p in (tmp_path / "out" / "candidates").glob("*/records.json")]
    assert {r["candidate"]["structure"] for one in records for r in one} == {"none", "unit", "weight"}
