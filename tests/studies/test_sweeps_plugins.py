"""Studies that name files: their tasks, recipes and measures, by name, everywhere, and never mixed up."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from places import ROOT
from size import full

import hoplens as hl
from hoplens.studies.extensions import kinds
from hoplens.studies.extensions.files import load_source
from hoplens.studies.sweeps import load_study, make_study, open_store, parse_study, run_sweep
from hoplens.studies.sweeps.status import status
from hoplens.studies.sweeps.stored import code_of, study_of
from hoplens.studies.sweeps.work import Failed, Finished, ShardPayload, run_payload

FILE = """
from dataclasses import dataclass
import torch
import hoplens as hl

GAIN = {gain}

@hl.extensions.register_task("delayed copy")
@dataclass(frozen=True)
class DelayedCopy:
    lag: int = 2
    length: int = 4
    n_inputs: int = 2
    n_outputs: int = 2
    form: str = "regression"

    def __post_init__(self):
        if self.lag >= self.length:
            raise ValueError("lag is too long")

    def sample(self, n, *, generator, dtype):
        inputs = torch.randn(n, self.length, self.n_inputs, generator=generator, dtype=dtype)
        return inputs, GAIN * inputs[:, self.length - 1 - self.lag]

class Hubs(hl.Penalty):
    def forward(self, net):
        return torch.linalg.vector_norm(net.w_rec, dim=-2).sum(dim=-1)

def hubs(length):
    return Hubs()

@hl.extensions.register_recipe("hubs")
def hubs_recipe(weight: float = 1.0):
    return hl.Recipe("hubs", (hl.recipes.Term(hubs, weight),))

@hl.extensions.register_measure("mass")
def mass(net, task):
    return GAIN * hl.hop_maps(net, task.length).values.abs().sum((-3, -2, -1))
"""

STUDY = """\
name = "mine"
plugins = ["my_task.py"]
measures = ["mass"]
strengths = [1e-3]
weights = "all"
seeds = { validation = [0], report = [1, 2] }
training = { hidden = 6, steps = 12, batch = 8 }

[[tasks]]
name = "delayed copy"
options = { lag = 1 }

[[tasks]]
name = "averaging"
length = 3
modules = 2
module_size = 1

[[methods]]
recipe = "hubs"

[[methods]]
recipe = "l1"
"""


@pytest.fixture(autouse=True)
def _leave_no_name(monkeypatch):
    """Registrations of a test end with it."""
    for registry in (kinds.TASKS, kinds.RECIPES, kinds.MEASURES):
        monkeypatch.setattr(registry, "_added", {})
    monkeypatch.setattr("hoplens.studies.extensions.files._sources", {})
    monkeypatch.setattr("hoplens.studies.extensions.files._brought", set())


def write(folder: Path, *, gain: float = 1, study: str = STUDY, file: str = FILE) -> Path:
    (folder / "my_task.py").write_text(file.replace("{gain}", str(gain)))
    (folder / "study.toml").write_text(study)
    return folder / "study.toml"


def sweep(path: Path, store: Path, **options) -> pd.DataFrame:
    plan = load_study(path).plan()
    with run_sweep(plan, store, **{"executor": "in-process"} | options) as found:
        return found.networks(plan.id)


def test_names_of_the_file_are_trained_and_measured(tmp_path):
    path = write(tmp_path)
    frame = sweep(path, tmp_path / "store")
    assert set(frame["task"]) == {"delayed copy (lag 1)", "averaging, every"}
    assert set(frame["method"]) == {"hubs", "L1"}
    assert len(frame) == 2 * 2 * 3
    row = frame[(frame["task"] == "delayed copy (lag 1)") & (frame["method"] == "hubs")].iloc[0]
    with open_store(tmp_path / "store") as store:
        net = store.ensemble(row["key"]).pathways()[0]
    expected = hl.hop_maps(net.to(torch.float64), 4).values.abs().sum()
    assert row["mass"] == pytest.approx(float(expected), rel=1e-12)
    task, recipe = hl.extensions.make_task("delayed copy", {"lag": 1}), hl.extensions.make_recipe("hubs")
    alone = hl.train(task, recipe, seeds=[0], strengths=[1e-3], hidden=6, steps=12, batch=8)
    assert row["test_error"] == pytest.approx(float(alone.metrics["test_error"].iloc[0]), rel=1e-5)


def test_options_of_a_recipe_and_lists_reach_what_they_are_for(tmp_path):
    text = STUDY.replace('recipe = "hubs"', 'recipe = "hubs"\nname = "half"\noptions = { weight = 0.5 }')
    plan = load_study(write(tmp_path, study=text)).plan()
    half = next(m.network.recipe for m in plan.members if m.network.recipe.name == "half")
    assert half.terms[0].weight == 0.5
    hl.extensions.register_task("listed")(lambda lags: hl.tasks.make("averaging", length=len(lags)))
    values = {
        "name": "x",
        "seeds": {"validation": [0], "report": [1]},
        "tasks": [{"name": "listed", "options": {"lags": [1, 2, 3]}, "label": "three"}],
        "methods": [{"recipe": "none"}],
    }
    (member, _) = make_study(values).plan().members
    assert (member.task, member.setting.task.length) == ("three", 3)


@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_workers_get_the_text_and_give_the_same_numbers(tmp_path, executor):
    study = load_study(write(tmp_path))
    whole = sweep(tmp_path / "study.toml", tmp_path / "here")
    (tmp_path / "my_task.py").unlink()  # what a worker elsewhere sees
    if executor == "threads":
        with ThreadPoolExecutor(2) as pool:
            found = run_sweep(study, tmp_path / "there", executor=pool)
    else:
        found = run_sweep(study, tmp_path / "there", executor=executor, workers=1)
    with found:
        pd.testing.assert_frame_equal(found.networks(), whole)


def test_a_changed_file_is_another_study_and_overwrites_nothing(tmp_path):
    path = write(tmp_path)
    first = sweep(path, tmp_path / "store")
    old = load_study(path)
    second = sweep(write(tmp_path, gain=2), tmp_path / "store")
    assert not set(first["key"]) & set(second["key"])
    third = sweep(write(tmp_path, file=FILE + "\n# a remark\n"), tmp_path / "store")
    assert not set(third["key"]) & set(first["key"])
    pd.testing.assert_frame_equal(third.drop(columns="key"), first.drop(columns="key"))
    with pytest.raises(
        hl.errors.ParameterError, match=r"my_task.py has changed since .* read the study again"
    ):
        run_sweep(old, tmp_path / "store")
    write(tmp_path)
    pd.testing.assert_frame_equal(sweep(path, tmp_path / "store"), first)
    with open_store(tmp_path / "store") as store:
        assert len(store.query("SELECT key FROM networks")) == 3 * len(first)


def test_what_the_file_does_not_touch_keeps_its_key(tmp_path):
    text = STUDY.replace('measures = ["mass"]\n', "")
    with_file = load_study(write(tmp_path, study=text)).plan()
    rows = {m.key for m in with_file.members if (m.task, m.network.recipe.name) == ("averaging, every", "L1")}
    bare = text.replace('plugins = ["my_task.py"]\n', "").replace('recipe = "hubs"', 'recipe = "none"')
    bare = bare.replace('name = "delayed copy"\noptions = { lag = 1 }', 'name = "addition"')
    assert rows < set(parse_study(bare).plan().by_key)


def test_store_goes_on_without_the_files(tmp_path):
    path = write(tmp_path)
    study = load_study(path)
    source = study.plan().source
    (tmp_path / "my_task.py").unlink()
    for registry in kinds.ALL:
        registry.forget(str(tmp_path / "my_task.py"))
    hl.extensions.files._sources.clear()
    with pytest.raises(hl.errors.FileError, match="reading a study runs none"):
        study_of(source, tmp_path)
    for code in code_of(source, tmp_path):
        load_source(code)
    again = study_of(source, tmp_path)
    assert again.plan().id == study.plan().id
    assert again.plan().source == source


@full
def test_entry_points_work_in_studies(tmp_path):
    package = tmp_path / "site"
    info = package / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "theirs.py").write_text(
        FILE.replace("{gain}", "1")
        .replace("@hl.extensions.register_task", "# ")
        .replace("@hl.extensions.register_recipe", "# ")
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hoplens.tasks]\ndelayed copy = theirs:DelayedCopy\n[hoplens.recipes]\nhubs = theirs:hubs_recipe\n"
        "[hoplens.measures]\nmass = theirs:mass\n"
    )
    path = write(tmp_path, study=STUDY.replace('plugins = ["my_task.py"]\n', ""))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hoplens.studies.sweeps import load_study, run_sweep\n"
        "plan = load_study(sys.argv[2]).plan()\n"
        "frame = run_sweep(plan, sys.argv[3], executor='in-process').networks()\n"
        "print(len(frame), frame['mass'].gt(0).all(), plan.id)\n"
    )

    def run() -> list[str]:
        command = [sys.executable, "-c", code, str(package), str(path), str(tmp_path / "store")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    count, measured, ident = run()
    assert (count, measured) == ("12", "True")
    with (package / "theirs.py").open("a") as file:
        file.write("\nOTHER = 1\n")
    assert run()[2] != ident  # an edit of the package counts too


def test_the_example_may_be_named_in_a_study(tmp_path):
    values = {
        "name": "example",
        "plugins": [ROOT / "examples" / "own_task.py"],
        "measures": ["senders"],
        "strengths": [1e-2],
        "seeds": {"validation": [0], "report": [1]},
        "training": {"hidden": 6, "steps": 10, "batch": 8},
        "tasks": [{"name": "cued recall", "options": {"lag": 1, "length": 3}}],
        "methods": [{"recipe": "group lasso"}],
    }
    with run_sweep(make_study(values), tmp_path, executor="in-process") as store:
        assert store.networks()["senders"].between(1, 6).all()


# -- what may go wrong


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('["my_task.py"]', '["gone.py"]', "study.toml: cannot read the extension"),
        ('["my_task.py"]', "[3]", "plugins[1] must be a table, got 3"),
        ('["my_task.py"]', '"my_task.py"', "plugins must be a list, got 'my_task.py'"),
        ('["my_task.py"]', '["my_task.py", "other.py"]', "already defined by"),
        ('["my_task.py"]', '["broken.py"]', "broken.py, line 2: ZeroDivisionError: division by zero"),
        ('["my_task.py"]', '["empty.py"]', "empty.py registers nothing"),
        (
            '"delayed copy"',
            '"delayed cop"',
            "tasks[1]: unknown task or data set 'delayed cop'",
        ),
        (
            "options = { lag = 1 }",
            "options = { lagg = 1 }",
            "tasks[1]: unknown option of the task 'delayed copy': 'lagg'",
        ),
        (
            "options = { lag = 1 }",
            "options = { lag = 9 }",
            "tasks[1]: the task 'delayed copy' cannot be made: ValueError: lag is too long",
        ),
        (
            "options = { lag = 1 }",
            "lag = 1",
            "the task 'delayed copy' is not built in, so lag goes into options",
        ),
        ("length = 3", "options = { length = 3 }", "the task averaging is built in and takes its options as"),
        (
            'recipe = "hubs"',
            'recipe = "hub"',
            "methods[1]: unknown recipe 'hub'; known: dropout, flow, hops, hubs, l1",
        ),
        (
            'recipe = "hubs"',
            'recipe = "hubs"\noptions = { width = 1 }',
            "unknown option of the recipe 'hubs': 'width'",
        ),
        (
            '["mass"]',
            '["masses"]',
            "temporal_sparsity, test_error, weight_corr; did you mean 'mass'?",
        ),
        ('["mass"]', '["mass", "mass"]', "study.toml: the measures name mass twice"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, old, new, says):
    (tmp_path / "broken.py").write_text("\nx = 1 / 0\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text(FILE.replace("{gain}", "3"))
    assert old in STUDY
    path = write(tmp_path, study=STUDY.replace(old, new))
    with pytest.raises(hl.HoplensError) as caught:
        load_study(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith("study.toml")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_kept_or_sent_is_refused_at_once():
    class Loose:
        n_inputs = n_outputs = length = 2
        form = "regression"

        def sample(self, n, *, generator, dtype):
            raise NotImplementedError

    hl.extensions.register_task("loose")(Loose)
    hl.extensions.register_recipe("lambda")(lambda: hl.Recipe("x", (hl.recipes.Term(lambda length: None),)))
    values = {"name": "x", "seeds": {"validation": [0], "report": [1]}, "strengths": [1.0]}
    with pytest.raises(
        hl.errors.ParameterError, match=r"task 'loose' cannot be kept and sent .*frozen dataclass"
    ):
        make_study(values | {"tasks": [{"name": "loose"}], "methods": [{"recipe": "none"}]})
    with pytest.raises(hl.errors.ParameterError, match="recipe 'lambda' cannot be kept and sent to workers"):
        make_study(values | {"tasks": [{"name": "averaging"}], "methods": [{"recipe": "lambda"}]})
    with pytest.raises(hl.errors.ParameterError, match="options are those of a recipe"):
        make_study(values | {"tasks": [{"name": "averaging"}], "methods": [{"options": {}, "penalties": []}]})


def test_measure_of_a_wrong_shape_or_name_fails_its_shard_with_a_reason(tmp_path):
    wrong = (
        FILE
        + '\n@hl.extensions.register_measure("all")\ndef everything(net, task):\n    return net.w_rec.sum()\n'
    )
    path = write(tmp_path, study=STUDY.replace('["mass"]', '["all"]'), file=wrong)
    with pytest.warns(UserWarning, match="12 networks of 12 are missing"):
        store = run_sweep(load_study(path), tmp_path / "store", executor="in-process")
    reasons = set(store.failures()["reason"])
    assert len(reasons) == 1
    assert "ContractError: the measure 'all' must return one real number a network" in reasons.pop()
    assert status(tmp_path / "store").failed == 2


def test_a_measure_that_was_defined_anew_is_not_stored_under_the_old_key(tmp_path):
    @hl.extensions.register_measure("one")
    def one(net, task):
        return torch.ones(net.batch_shape)

    text = STUDY.replace('["mass"]', '["one"]')
    study = load_study(write(tmp_path, study=text))
    study.plan()
    kinds.MEASURES.forget(kinds.MEASURES.source("one"))

    @hl.extensions.register_measure("one")
    def two(net, task):
        return 2 * torch.ones(net.batch_shape)

    with pytest.warns(UserWarning, match="are missing"):
        store = run_sweep(study, tmp_path / "store", executor="in-process")
    assert "'one' is not the one that the study was planned with" in store.failures()["reason"].iloc[0]


def test_a_file_that_cannot_run_where_the_work_is_fails_the_shard(tmp_path, monkeypatch):
    file = 'import os\nif "FAR" in os.environ:\n    raise RuntimeError("not here")\n' + FILE
    shard = load_study(write(tmp_path, file=file)).plan().shards()[0]
    payload = pickle.loads(pickle.dumps(ShardPayload.of(shard)))
    hl.extensions.files._sources.clear()
    monkeypatch.setenv("FAR", "1")
    failed = run_payload(payload)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("ExtensionError: ")
    assert "RuntimeError: not here" in failed.reason


def test_a_worker_takes_studies_whose_files_use_the_same_names(tmp_path):
    payloads = []
    for gain in (1, 2):  # two people's files, in two folders
        folder = tmp_path / str(gain)
        folder.mkdir()
        payloads.append(ShardPayload.of(load_study(write(folder, gain=gain)).plan().shards()[0]))
        for registry in kinds.ALL:
            registry.forget(str(folder / "my_task.py"))
        hl.extensions.files._sources.clear()
    first, second, again = (run_payload(payloads[n]) for n in (0, 1, 0))
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert isinstance(again, Finished)
    assert first.records == again.records != second.records


def payload_of(folder: Path, gain: float, **changes) -> ShardPayload:
    """Return a shard of a study whose file this process then forgets, as a worker that gets it has none."""
    folder.mkdir()
    payload = ShardPayload.of(load_study(write(folder, gain=gain, **changes)).plan().shards()[0])
    for registry in kinds.ALL:
        registry.forget(str(folder / "my_task.py"))
    hl.extensions.files._sources.clear()
    return payload


def test_threads_of_one_worker_keep_their_files_while_they_need_them(tmp_path):
    slow = FILE.replace("    return GAIN * hl", "    import time\n    time.sleep(0.3)\n    return GAIN * hl")
    payloads = [payload_of(tmp_path / str(gain), gain, file=slow) for gain in (1, 2)]
    alone = [run_payload(payload) for payload in payloads]
    assert all(isinstance(found, Finished) for found in alone), alone
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run_payload, [*payloads, *payloads]))
    for found, expected in zip(together, alone * 2, strict=True):
        assert isinstance(found, Finished), found
        assert found.records == expected.records


@pytest.mark.parametrize("executor", ["in-process", "processes"])
@pytest.mark.parametrize(
    "ends", ["sys.exit(0)", "sys.exit()", "raise SystemExit('done')", "raise GeneratorExit"]
)
def test_an_own_task_or_measure_that_ends_the_process_fails_its_shards_alone(tmp_path, executor, ends):
    file = FILE.replace("    return GAIN * hl", f"    import sys\n    {ends}\n    return GAIN * hl")
    if executor == "processes" and ends != "sys.exit(0)":
        pytest.skip("starting processes is slow, and what they run is the same")
    plan = load_study(write(tmp_path, file=file)).plan()
    with pytest.warns(UserWarning, match="12 networks of 12 are missing"):
        store = run_sweep(plan, tmp_path / "store", executor=executor, workers=1)
    with store:
        reasons = store.failures()["reason"]
    assert len(reasons)
    assert reasons.str.contains("SystemExit|GeneratorExit").all()


@pytest.mark.parametrize("ends", ["sys.exit(0)", "sys.exit('bye')", "raise GeneratorExit", "quit()"])
def test_a_file_that_ends_the_process_is_one_clear_error(tmp_path, monkeypatch, capsys, ends):
    path = write(tmp_path, file=f"import sys\n{ends}\n{FILE}")
    with pytest.raises(hl.errors.ExtensionError, match=r"my_task.py, line 2: (System|Generator)Exit"):
        load_study(path)
    code, _, err = command(monkeypatch, capsys, "sweep", str(path), "--store", str(tmp_path / "store"))
    assert code == 2
    assert err.strip().count("\n") == 0
    for maker in ("DelayedCopy:\n    lag: int = 2", "def hubs_recipe(weight: float = 1.0):"):
        broken = FILE.replace(
            "        if self.lag >=", f"        import sys\n        {ends}\n        if self.lag >="
        )
        if "hubs" in maker:
            broken = FILE.replace("    return hl.Recipe", f"    import sys\n    {ends}\n    return hl.Recipe")
        with pytest.raises(hl.errors.ParameterError, match="cannot be made"):
            load_study(write(tmp_path, file=broken))


# -- the command


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    from hoplens.cli import app as cli

    monkeypatch.setattr(sys, "argv", ["hoplens", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def test_the_command_runs_dry_runs_resumes_and_tells_the_status(tmp_path, monkeypatch, capsys):
    path, store = write(tmp_path), str(tmp_path / "store")
    code, out, _ = command(monkeypatch, capsys, "sweep", str(path), "--store", store, "--dry-run")
    assert (code, "12 networks, 0 of them" in out) == (0, True)
    code, out, _ = command(monkeypatch, capsys, "sweep", str(path), "--store", store)
    assert (code, "12 of 12 networks are in" in out) == (0, True)
    (tmp_path / "my_task.py").unlink()
    code, out, _ = command(monkeypatch, capsys, "sweep", "--resume", "--store", store)
    assert (code, "12 of 12 networks are in" in out) == (0, True)
    code, out, _ = command(monkeypatch, capsys, "status", store)
    assert (code, "12 of 12 networks (100%), done" in out) == (0, True)
    code, _, err = command(monkeypatch, capsys, "sweep", str(path))
    assert code == 2
    assert err.strip().count("\n") == 0
    assert "cannot read the extension" in err


def test_the_command_says_why_an_own_task_fails(tmp_path, monkeypatch, capsys):
    broken = FILE.replace("return inputs, GAIN", "raise KeyError('no data')\n        return inputs, GAIN")
    path = write(tmp_path, file=broken)
    code, out, _ = command(
        monkeypatch, capsys, "sweep", str(path), "--store", str(tmp_path / "s"), "--executor", "in-process"
    )
    assert code == 1
    assert "KeyError: 'no data'" in " ".join(out.split())
