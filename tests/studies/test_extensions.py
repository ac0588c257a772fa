"""Names, files and entry points: found, refused where they are taken, carried to other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from places import ROOT
from rich.console import Console

import hoplens as hl
from hoplens.cli.commands.train import run_tasks
from hoplens.plots import plot_comparison
from hoplens.registry import Registry, owner_of
from hoplens.reports.tables import summary_table
from hoplens.studies.extensions import kinds
from hoplens.studies.measuring import measure
from hoplens.studies.testing import check_task

EXAMPLE = ROOT / "examples" / "own_task.py"

FILE = """
from dataclasses import dataclass
import torch
import hoplens as hl

GAIN = {gain}

@hl.extensions.register_task("echo {tag}")
@dataclass(frozen=True)
class Echo:
    length: int = 3
    n_inputs: int = 1
    n_outputs: int = 1
    form: str = "regression"

    def sample(self, n, *, generator, dtype):
        inputs = torch.randn(n, self.length, 1, generator=generator, dtype=dtype)
        return inputs, GAIN * inputs[:, 0]
"""


@pytest.fixture(autouse=True)
def _leave_no_name(monkeypatch):
    """Registrations of a test end with it."""
    for registry in kinds.ALL:
        monkeypatch.setattr(registry, "_added", dict(registry._added))
    monkeypatch.setattr("hoplens.studies.extensions.files._sources", {})


def write(folder: Path, name: str = "my-task.py", *, gain: float = 1, tag: str = "x") -> Path:
    path = folder / name
    path.write_text(FILE.format(gain=gain, tag=tag))
    return path


# names


def test_built_in_names_are_there_and_make_what_they_say():
    task = hl.extensions.make_task("subtraction", {"signal": "sparse", "lag": 2, "length": 4})
    assert task == hl.tasks.make("subtraction", signal="sparse", lag=2, length=4)
    assert hl.extensions.make_recipe("paper") == hl.recipes.paper()
    table = hl.extensions.discover()
    assert set(hl.tasks.names()) <= set(table.loc[table["kind"] == "task", "name"])
    assert set(hl.recipes.BUILT_IN) <= set(table.loc[table["kind"] == "recipe", "name"])
    assert (table.loc[table["name"] == "averaging", "source"] == "hoplens").all()


def test_a_decorator_names_a_function_and_gives_it_back():
    @hl.extensions.register_recipe("sparser")
    def sparser(damping: float = 0.5) -> hl.Recipe:
        return hl.Recipe("sparser", (hl.recipes.Term(hl.recipes.PathwaySpec(damping=damping)),))

    assert hl.extensions.make_recipe("sparser", {"damping": 0.7}) == sparser(0.7)
    with pytest.raises(
        hl.errors.UnknownNameError, match=r"unknown option of the recipe 'sparser': 'dampin'.*'damping'"
    ):
        hl.extensions.make_recipe("sparser", {"dampin": 0.7})
    with pytest.raises(hl.errors.UnknownNameError, match=r"unknown recipe 'sparsr'.*did you mean 'sparser'"):
        hl.extensions.make_recipe("sparsr")


def test_a_taken_name_is_refused_but_a_function_may_be_defined_again():
    def first():
        return hl.recipes.l1()

    def second():
        return hl.recipes.l2()

    hl.extensions.register_recipe("mine")(first)
    hl.extensions.register_recipe("mine")(first)  # as when a notebook's cell is run again
    with pytest.raises(hl.errors.ParameterError, match=r"'mine' of .*second is already defined by .*first"):
        hl.extensions.register_recipe("mine")(second)
    with pytest.raises(hl.errors.ParameterError, match=r"'l1' of .* is already defined by hoplens"):
        hl.extensions.register_recipe("l1")(first)
    with pytest.raises(hl.errors.ParameterError, match="name of a task must be a text"):
        hl.extensions.register_task("")(first)
    with pytest.raises(hl.errors.ParameterError, match="registered as a function"):
        hl.extensions.register_measure("three")(3)
    assert hl.extensions.make_recipe("mine") == hl.recipes.l1()


def test_what_a_function_returns_is_checked():
    hl.extensions.register_task("no task")(lambda: 3)
    hl.extensions.register_recipe("no recipe")(lambda: 3)
    with pytest.raises(hl.errors.ContractError, match=r"'no task' .* got int"):
        hl.extensions.make_task("no task")
    with pytest.raises(hl.errors.ContractError, match=r"'no recipe' .* got int"):
        hl.extensions.make_recipe("no recipe")
    hl.extensions.register_task("needs")(lambda *, size: size)
    with pytest.raises(
        hl.errors.ParameterError, match=r"'needs' cannot be made: missing a required .*'size'"
    ):
        hl.extensions.make_task("needs")
    hl.extensions.register_task("any")(lambda **options: hl.tasks.make("averaging", **options))
    assert hl.extensions.make_task("any", {"length": 3}).length == 3


def test_measures_give_one_number_a_network():
    @hl.extensions.register_measure("mass")
    def mass(net, task):
        return hl.hop_maps(net, task.length).values.abs().sum((-3, -2, -1))

    hl.extensions.register_measure("all")(lambda net, task: mass(net, task).sum())
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    run = hl.train(task, hl.recipes.l1(), seeds=range(2), strengths=[1e-3], hidden=4, steps=3)
    found = hl.extensions.apply_measures(["mass"], run.pathways, task)["mass"]
    assert found.dtype == torch.float64
    frame = measure(run, ["mass"])
    assert frame["mass"].tolist() == pytest.approx(found.tolist(), rel=1e-5)
    with pytest.raises(hl.errors.ContractError, match=r"'all' must return one real number .* shape \(2,\)"):
        measure(run, ["all"])
    with pytest.raises(hl.errors.ParameterError, match=r"'accuracy' .* is already defined by hoplens"):
        hl.extensions.register_measure("accuracy")(mass)
    hl.extensions.register_measure("seed")(mass)
    with pytest.raises(hl.errors.ParameterError, match="'seed' has the name of a column"):
        measure(run, ["seed"])


def test_a_measure_is_one_value_that_tables_pages_and_plots_take():
    @hl.extensions.register_measure(
        "mass", label="pathway mass", better="lower", meaning="Sum of all pathways."
    )
    def mass(net, task):
        return hl.hop_maps(net, task.length).values.abs().sum((-3, -2, -1))

    columns = {"mass": [1.0, 2.0], "mass_low": [0.9, 1.9], "mass_high": [1.1, 2.1], "strength": 1e-3, "n": 3}
    summary = pd.DataFrame({"task": "t", "method": ["L1", "recommended"], **columns})
    axes = plot_comparison(summary, "mass")
    assert axes.get_xlabel() == "pathway mass"
    table = summary_table(summary)
    assert [measure.label for measure in table.measures] == ["pathway mass"]
    assert [row.cells[0].best for row in table.blocks[0].rows] == [True, False]  # lower is better
    seen = []
    hl.extensions.register_measure("drawn", plot=lambda frame, ax: seen.append(len(frame)))(
        lambda net, task: net.w_rec
    )
    plot_comparison(summary, "drawn")
    assert seen == [2]


class Hubs(hl.Penalty):
    acts_on = "graph"

    def __init__(self, horizon, power=1.0):
        super().__init__()
        self.horizon, self.power = horizon, power

    def forward(self, net):
        return self.horizon * net.w_rec.abs().pow(self.power).sum((-2, -1))


def test_a_study_file_names_any_penalty():
    hl.extensions.register_penalty("hubs")(Hubs)
    values = {
        "name": "own",
        "strengths": [1e-3],
        "seeds": {"validation": [0], "report": [1]},
        "tasks": [{"name": "averaging", "length": 5}],
        "methods": [{"name": "hubs", "penalties": [{"penalty": "hubs", "options": {"power": 2.0}}]}],
    }
    study = hl.sweeps.make_study(values)
    (term,) = study.methods[0].build().terms
    penalty = term.penalty(5)
    assert (penalty.horizon, penalty.power) == (5, 2.0)
    for wrong, says in (
        ({"penalty": "hub"}, "unknown penalty 'hub'.*did you mean 'hubs'"),
        (
            {"penalty": "hubs", "options": {"pwer": 1}},
            "option of the penalty 'hubs': 'pwer'.*did you mean 'power'",
        ),
        ({"penalty": "hubs", "norm": "l1"}, "option of the penalty 'hubs': 'norm'"),
        ({"penalty": "weight", "norm": "l1", "options": {}}, "norm and options in one place"),
    ):
        values["methods"][0]["penalties"] = [wrong]
        with pytest.raises(hl.errors.ParameterError, match=says):
            hl.sweeps.make_study(values)
    by_hand = hl.Recipe("flow", (hl.recipes.Term(hl.extensions.make_penalty("flow", {"sequences": 2})),))
    assert by_hand.penalty(4).terms[0].sequences == 2


def test_an_own_task_is_measured_as_far_as_it_declares_its_truth(tmp_path):
    echo = hl.extensions.load_file(write(tmp_path)).Echo
    run = hl.train(echo(), hl.recipes.l1(), seeds=range(2), strengths=[1e-3], hidden=4, steps=3)
    frame = measure(run)
    assert {"active_hops", "temporal_sparsity", "kept_70"} <= set(frame)
    assert not {"alignment", "signal_share", "target_active_hops"} & set(frame)


def test_the_list_of_tasks_shows_own_ones_with_their_place(tmp_path, capsys):
    path = write(tmp_path)
    hl.extensions.load_file(path)
    run_tasks(Console(width=250))
    line = next(line for line in capsys.readouterr().out.splitlines() if "echo x" in line)
    assert path.name in line


# files


def test_a_file_registers_its_task_once(tmp_path):
    path = write(tmp_path)
    module = hl.extensions.load_file(path)
    assert hl.extensions.load_file(path) is module
    assert hl.extensions.make_task("echo x", {"length": 4}) == module.Echo(4)
    check_task(module.Echo())
    source = kinds.TASKS.source("echo x")
    assert source == str(path)


def test_a_changed_file_replaces_its_last_version_under_another_module_name(tmp_path):
    old = hl.extensions.load_file(write(tmp_path))
    new = hl.extensions.load_file(write(tmp_path, gain=2))
    assert new.__name__ != old.__name__
    assert hl.extensions.make_task("echo x").__class__ is new.Echo
    hl.extensions.load_file(write(tmp_path, tag="y"))
    assert kinds.TASKS.find("echo x") is None
    again = hl.extensions.load_file(write(tmp_path))
    assert again.__name__ == old.__name__


def test_two_files_or_one_file_with_the_same_name_are_refused(tmp_path):
    hl.extensions.load_file(write(tmp_path))
    with pytest.raises(
        hl.errors.ParameterError, match=r"'echo x' of .*other.py is already defined by .*my-task.py"
    ):
        hl.extensions.load_file(write(tmp_path, "other.py", gain=2))
    twice = tmp_path / "twice.py"
    twice.write_text(FILE.format(gain=1, tag="t") + FILE.format(gain=2, tag="t"))
    with pytest.raises(hl.errors.ParameterError, match=r"'echo t' of .* is already defined by .*twice.py"):
        hl.extensions.load_file(twice)
    assert kinds.TASKS.find("echo t") is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "import hoplens\n\nx = 1 / 0\n",
            "bad.py, line 3: ZeroDivisionError: division by zero; mend the file",
        ),
        ("def f(:\n", "bad.py, line 1: SyntaxError"),
        ("import no_such_package_x\n", "line 1: ModuleNotFoundError"),
        ("x = 1\n", "bad.py registers nothing"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_clear_error_and_leaves_the_old_version(tmp_path, text, match):
    path = write(tmp_path, "bad.py")
    good = hl.extensions.load_file(path)
    path.write_text(text)
    before = set(sys.modules)
    with pytest.raises(hl.errors.ExtensionError, match=match):
        hl.extensions.load_file(path)
    assert set(sys.modules) == before
    assert kinds.TASKS.get("echo x") is good.Echo


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(hl.errors.FileError, match=r"cannot read the extension .*gone.py \(No such file"):
        hl.extensions.load_file(tmp_path / "gone.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(hl.errors.FileError, match="not UTF-8"):
        hl.extensions.load_file(tmp_path / "binary.py")


# packages


PACKAGE = """
import hoplens as hl
import torch

def make():
    return hl.tasks.make("averaging", length=3)

@hl.extensions.register_recipe("theirs")
def recipe():
    return hl.recipes.l2()

class Model(torch.nn.Module):
    pass

def read_model(model):
    return hl.models.FunctionCell(lambda state, x: torch.tanh(state + x), n_inputs=2, n_state=2)
"""
POINTS = """
[hoplens.tasks]
installed task = their_package:make
broken task = their_package:nothing
averaging = their_package:make

[hoplens.recipes]
theirs = their_package:recipe

[hoplens.readers]
their_package.Model = their_package:read_model
"""
USE = """
import sys
import hoplens as hl

table = hl.extensions.discover()
assert "their_package" not in sys.modules, "listing imports nothing"
assert "their_package:make" in set(table["source"])
assert hl.extensions.make_task("averaging", {"length": 5}).length == 5  # the built-in one
assert hl.extensions.make_task("installed task").length == 3
assert hl.extensions.make_recipe("theirs") == hl.recipes.l2()
try:
    hl.extensions.make_task("broken task")
except hl.errors.ExtensionError as error:
    print(error)
import their_package
assert hl.read(their_package.Model()).n_inputs == 2
try:
    hl.extensions.register_task("installed task")(lambda: None)
except hl.errors.ParameterError as error:
    print(error)
"""


def install(folder: Path, name: str, points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def in_new_process(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(Path(hl.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_installed_packages_announce_their_own(tmp_path):
    (tmp_path / "their_package.py").write_text(PACKAGE)
    install(tmp_path, "theirs", POINTS)
    done = in_new_process(tmp_path, USE)
    assert done.returncode == 0, done.stderr
    broken, taken = done.stdout.splitlines()
    assert "'broken task' of theirs (their_package:nothing) cannot be loaded (AttributeError" in broken
    assert "'installed task' of" in taken
    assert "already defined by their_package:make" in taken


def test_two_packages_of_one_name_are_both_named(tmp_path, monkeypatch):
    for name in ("one", "two"):
        install(tmp_path, name, f"[hoplens.things]\nsame = {name}:thing\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    registry: Registry[object] = Registry("thing", "hoplens.things", {})
    with pytest.raises(
        hl.errors.ExtensionError, match=r"several packages define the thing 'same': .*one.*two"
    ):
        registry.get("same")
    assert registry.names() == ("same",)


def test_readers_of_a_class_are_refused_twice():
    class Mine:
        pass

    def one(model):
        return hl.models.FunctionCell(lambda s, x: s * x, n_inputs=2, n_state=2)

    def two(model):
        return one(model)

    hl.extensions.register_reader(Mine, one)
    hl.extensions.register_reader(Mine, one)
    with pytest.raises(hl.errors.ParameterError, match=r"Mine' of .*two is already defined by .*one"):
        hl.extensions.register_reader(Mine, two)


def test_owners_are_written_as_entry_points_are():
    assert owner_of(hl.tasks.make) == "hoplens.data.tasks.registry:make"
    assert owner_of(Registry) == "hoplens.registry:Registry"


# the example


def test_the_example_runs(capsys):
    hl.extensions.load_file(EXAMPLE).main()
    out = capsys.readouterr().out
    assert "keep their contracts" in out
    assert "senders" in out
    assert "group lasso" in out


def test_tasks_make_finds_registered_tasks():
    @hl.extensions.register_task("an own average")
    def own_average(size: int = 2) -> hl.tasks.Task:
        return hl.tasks.make("averaging", module_size=size, length=3)

    assert hl.tasks.make("an own average").module_size == 2
    assert hl.tasks.make("an own average", options={"size": 3}).module_size == 3
    with pytest.raises(hl.errors.ParameterError, match=r"takes no length; give its own options as options="):
        hl.tasks.make("an own average", length=5)
    with pytest.raises(hl.errors.ParameterError, match="averaging is built in and takes keywords"):
        hl.tasks.make("averaging", options={"length": 5})
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean 'an own average'"):
        hl.tasks.make("an own averag")


def test_measures_of_one_study_share_their_hop_maps(monkeypatch):
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    run = hl.train(task, hl.recipes.none(), hidden=4, steps=3)
    made = []
    real = hl.hop_maps
    monkeypatch.setattr("hoplens.studies.measures.hop_maps", lambda *given: made.append(1) or real(*given))
    measure(run)
    assert len(made) == 1
