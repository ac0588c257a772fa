"""Study files: what they may hold, what errors say, and what is planned from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_toys import Toy, toy_plan

from hoplens import recipes
from hoplens.cli.commands.sweep import example
from hoplens.data.tasks import make
from hoplens.errors import FileError, ParameterError
from hoplens.models.cells import CELLS
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.studies.statistics.selection import choose_strengths
from hoplens.studies.sweeps import load_study, make_study, parse_study, run_sweep
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.plan import MOST_NETWORKS, SHARD_BYTES, SHARD_SECONDS, Plan, cut, shard_size
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.training.settings import Network, Settings

STUDY = """\
name = "demo"
strengths = [1e-4, 1e-3]

[seeds]
validation = { first = 0, count = 2 }
report = [100, 101, 102]

[training]
hidden = [8, 16]
steps = 10

[[tasks]]
name = "averaging"
length = 4

[[tasks]]
name = "subtraction"
signal = "sparse"
lag = 2
length = 4

[[methods]]
recipe = "none"

[[methods]]
recipe = "l1"

[[methods]]
name = "own"
init = "delay"
strengths = [0.5]
pruning = { amount = 0.5, tolerance = 0.2 }
penalties = [
  { penalty = "pathway", across = "sum", schedule = [[0.0, 1.0], [0.5, 0.0]] },
  { penalty = "weight", norm = "l2", weight = 0.25 },
]
"""


def test_every_combination_is_planned_once():
    plan = parse_study(STUDY).plan()
    assert len(plan.members) == 2 * 2 * (1 + 2 + 1) * 5
    assert len(plan.by_key) == len(plan.members)
    assert {member.task for member in plan.members} == {
        f"{task}, {hidden} hidden"
        for task in ("averaging, every", "subtraction, sparse (lag 2)")
        for hidden in (8, 16)
    }
    roles = {member.network.seed: member.role for member in plan.members}
    assert roles == {0: "validation", 1: "validation", 100: "report", 101: "report", 102: "report"}
    strengths = {(m.network.recipe.name, m.network.strength) for m in plan.members}
    assert strengths == {("none", 0.0), ("L1", 1e-4), ("L1", 1e-3), ("own", 0.5)}


def test_own_method_is_built_as_written():
    plan = parse_study(STUDY).plan()
    own = next(m.network.recipe for m in plan.members if m.network.recipe.name == "own")
    first, second = own.terms
    assert first.penalty == recipes.PathwaySpec("sum")
    assert first.schedule.points == ((0.0, 1.0), (0.5, 0.0))
    assert (second.penalty, second.weight) == (recipes.WeightSpec("l2"), 0.25)
    assert own.init == "delay"
    assert own.pruning == GradualPruning(0.5, tolerance=0.2)


def test_recipe_may_be_changed():
    text = STUDY.replace(
        'recipe = "l1"', 'recipe = "recommended"\nname = "unpruned"\npruning = false\ninit = "gaussian"'
    )
    plan = parse_study(text).plan()
    found = next(m.network.recipe for m in plan.members if m.network.recipe.name == "unpruned")
    assert found.pruning is None
    assert found.init == "gaussian"
    assert found.terms == recipes.recommended().terms


def test_training_settings_reach_the_networks():
    plan = parse_study(
        STUDY.replace("steps = 10", 'steps = 11\nlr = 1e-2\nleak = 0.5\ndtype = "float64"')
    ).plan()
    setting = plan.members[0].setting
    assert setting.settings == Settings(hidden=8, steps=11, lr=1e-2, leak=0.5)
    assert setting.dtype == "float64"


def test_parts_have_their_own_tasks_methods_and_strengths():
    text = (
        STUDY
        + """
[[parts]]
name = "reach"
strengths = [0.25]
tasks = [{ name = "addition" }]
methods = [{ recipe = "l2" }, { recipe = "paper", strengths = [0.125] }]
"""
    )
    plan = parse_study(text).plan()
    reach = {(m.task, m.network.recipe.name, m.network.strength) for m in plan.members if m.part == "reach"}
    assert reach == {
        (f"addition, every, {h} hidden", *ms) for h in (8, 16) for ms in (("L2", 0.25), ("paper", 0.125))
    }


def test_study_comes_back_from_what_the_store_keeps():
    for text in (STUDY, example()):
        plan = parse_study(text).plan()
        assert Study.model_validate_json(plan.source).plan().id == plan.id


def test_example_is_a_study_of_every_kind_of_method(tmp_path):
    plan = parse_study(example()).plan()
    assert {m.network.recipe.name for m in plan.members} == {"none", "L1", "paper", "hops, then L1"}
    assert f"{len(plan.by_key)} networks" in example()


def test_name_is_that_of_the_file_unless_given(tmp_path):
    (tmp_path / "mine.toml").write_text(STUDY.replace('name = "demo"\n', ""))
    assert load_study(tmp_path / "mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 10", "stepz = 10", "unknown key training.stepz; known here: hidden, steps, batch"),
        ("steps = 10", "stepz = 10", "did you mean steps?"),
        ("steps = 10", "steps = 0", "training.steps must be at least 1, got 0"),
        ("steps = 10", 'steps = "ten"', "training.steps must be a whole number, got 'ten'"),
        ("steps = 10", "steps = 1.5", "training.steps must be a whole number, got 1.5"),
        ("steps = 10", "lr = nan", "training.lr must be a finite number, got nan"),
        ("steps = 10", "decay = 2", "training.decay must be at most 1, got 2"),
        (
            "steps = 10",
            'cell = "gelu"',
            "training.cell: unknown cell 'gelu'; known: gru, leaky, linear, lru",
        ),
        ("steps = 10", 'device = "gpu"', "training: device must be cpu or cuda, got 'gpu'"),
        ("hidden = [8, 16]", "hidden = [8, -1]", "training.hidden[2] must be at least 1, got -1"),
        ("hidden = [8, 16]", "hidden = []", "training.hidden must hold at least 1, got []"),
        ("[1e-4, 1e-3]", "[1e-4, -1e-3]", "strengths[2] must be at least 0, got -0.001"),
        ("strengths = [1e-4, 1e-3]\n", "", "method L1 has no strengths"),
        (
            "report = [100, 101, 102]",
            "report = [1, 100]",
            "seeds: validation and report seeds must be apart, but both hold 1",
        ),
        ("report = [100, 101, 102]", "report = [100, 100]", "the report seeds hold one seed twice"),
        ("report = [100, 101, 102]", "", "seeds.report is missing"),
        (
            "report = [100, 101, 102]",
            "report = { count = 0 }",
            "seeds.report: count must be a whole number of at least 1, got 0",
        ),
        (
            "report = [100, 101, 102]",
            "report = { first = 3 }",
            "a range of seeds has count and, if you like, first, got first",
        ),
        (
            'name = "subtraction"',
            'name = "substraction"',
            "tasks[2]: unknown task or data set 'substraction'",
        ),
        ('name = "subtraction"', 'name = "substraction"', "did you mean 'subtraction'?"),
        ("lag = 2", "lag = 9", "tasks[2]: lag must be below the length 4, got 9"),
        ('recipe = "l1"', 'recipe = "l3"', "methods[2]: unknown recipe 'l3'"),
        ('recipe = "l1"', "", "methods[2]: a method needs either recipe or penalties"),
        ('recipe = "l1"', 'recipe = "none"', "the study names a network twice: none"),
        ('init = "delay"', 'init = "late"', "methods[3]: unknown init 'late'"),
        (
            'across = "sum"',
            'across = "all"',
            "methods[3].penalties[1].across must be 'hops' or 'sum', got 'all'",
        ),
        (
            'across = "sum"',
            'blocks = ["rec"]',
            "methods[3].penalties[1]: unknown option of the penalty 'pathway': 'blocks'",
        ),
        (
            "weight = 0.25",
            "weigth = 0.25",
            "unknown key methods[3].penalties[2].weigth; known here: penalty, weight",
        ),
        ("[0.5, 0.0]", "[1.5, 0.0]", "schedule[2][1] must be at most 1, got 1.5"),
        (
            "[[0.0, 1.0], [0.5, 0.0]]",
            "[[0.5, 1.0], [0.0, 0.0]]",
            "the progress of a schedule's points must not fall",
        ),
        ("amount = 0.5", "amount = 1.0", "methods[3].pruning.amount must be below 1, got 1.0"),
        ("amount = 0.5", "start = 0.9, amount = 0.5", "pruning needs 0 <= start < stop"),
        ('name = "demo"', 'name = "../demo"', "name string should match pattern"),
        ("[training]", "weights = [1]\n[training]", "unknown key seeds.weights"),
        (
            'name = "demo"',
            'name = "demo"\nweights = "some"',
            "weights must be 'none' or 'all', got 'some'",
        ),
        ("[training]", "[training", "is no TOML: Expected ']'"),
    ],
)
def test_mistakes_are_told_with_key_and_what_is_allowed(tmp_path, old, new, says):
    assert old in STUDY
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(ParameterError) as caught:
        load_study(path)
    message = str(caught.value)
    assert says in message
    assert message.startswith("study.toml")
    assert "\n" not in message


def test_first_mistake_is_told_and_the_others_counted():
    text = STUDY.replace("steps = 10", "steps = 0").replace("length = 4", "length = 0")
    with pytest.raises(ParameterError, match=r".*\(and 2 more\)"):
        parse_study(text)


def test_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        load_study(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not UTF-8 text"):
        load_study(tmp_path / "bytes.toml")


def test_empty_studies_are_refused():
    seeds = "seeds = { validation = [0], report = [1] }\n"
    with pytest.raises(ParameterError, match=r"needs \[\[tasks\]\] and \[\[methods\]\], or \[\[parts\]\]"):
        parse_study(seeds)
    with pytest.raises(ParameterError, match="go together"):
        parse_study(seeds + 'tasks = [{ name = "averaging" }]')
    with pytest.raises(ParameterError, match="at least one network"):
        Plan("empty", ())


def test_study_may_be_made_in_python():
    values = {
        "name": "mine",
        "seeds": {"validation": (0,), "report": [1]},
        "tasks": [{"name": "averaging"}],
        "methods": ({"recipe": "none"},),
    }
    assert len(make_study(values).plan().members) == 2
    with pytest.raises(ParameterError, match=r"^the study: tasks\[1\].length must be at least 1, got 0$"):
        make_study(values | {"tasks": [{"name": "averaging", "length": 0}]})


# -- shards


def test_shards_mix_methods_and_strengths_and_keep_seeds_together():
    plan = parse_study(STUDY.replace("[8, 16]", "16")).plan()
    shards = plan.shards()
    assert len(shards) == 2  # one a task
    for shard in shards:
        assert {n.recipe.name for n in shard.networks} == {"none", "L1", "own"}
        seeds = [n.seed for n in shard.networks]
        assert seeds == sorted(seeds)


def test_shapes_are_not_mixed():
    shards = parse_study(STUDY).plan().shards()
    assert len({shard.setting for shard in shards}) == len(shards) == 4


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_shards_cover_every_network_once_and_are_alike(seeds, size, workers):
    plan = toy_plan(Toy(size=size), seeds=seeds)
    shards = plan.shards(workers=workers)
    keys = [key for shard in shards for key in shard.keys]
    assert sorted(keys) == sorted(plan.by_key)
    sizes = [len(shard.networks) for shard in shards]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_shards_come_in_multiples_of_the_workers_unless_they_get_small():
    networks = [member.network for member in toy_plan(seeds=15).members]  # 30
    assert [len(s.networks) for s in cut(Toy(size=20), networks, workers=2)] == [15, 15]
    assert [len(s.networks) for s in cut(Toy(size=12), networks, workers=2)] == [7, 8, 7, 8]
    assert [len(s.networks) for s in cut(Toy(size=100), networks, workers=8)] == [30]


def test_known_networks_are_left_out():
    plan = toy_plan()
    known = set(list(plan.by_key)[:5])
    left = {key for shard in plan.shards(known) for key in shard.keys}
    assert left == set(plan.by_key) - known


def test_shards_fit_the_cache():
    plan = parse_study(example()).plan()
    setting = plan.members[0].setting
    size = shard_size(setting)
    assert (
        size == MOST_NETWORKS or size * setting.state_bytes <= SHARD_BYTES < (size + 1) * setting.state_bytes
    )
    huge = parse_study(example().replace("hidden = 16 #", "hidden = 20000 #")).plan().members[0].setting
    assert shard_size(huge) == 1


def test_example_of_the_documentation_is_hashable_and_picklable():
    import pickle

    shard = parse_study(example()).plan().shards()[0]
    again = pickle.loads(pickle.dumps(shard))
    assert again == shard
    assert again.key == shard.key


@pytest.mark.parametrize(
    ("hidden", "length", "steps", "count"), [(32, 8, 2000, 200), (8, 4, 2000, 300), (48, 10, 400, 60)]
)
def test_shards_are_short_enough_to_show_progress(hidden, length, steps, count):
    """By the rough time of a busy core; a network that takes longer than that alone is a shard of its own."""
    setting = TaskSetting(make("averaging", length=length), Settings(hidden=hidden, steps=steps))
    shards = cut(setting, [Network(recipes.l1(), 0.1, seed) for seed in range(count)])
    batch, each = setting.rough_seconds
    assert all(batch + each * len(shard.networks) <= SHARD_SECONDS for shard in shards)
    assert len(shards) > 1
    long = TaskSetting(make("averaging", length=8), Settings(hidden=512, steps=100_000))
    assert max(len(shard.networks) for shard in cut(long, shards[0].networks)) < 10


REAL = """
strengths = [1e-3]
seeds = { validation = [0], report = [1, 2] }
training = { hidden = 6, steps = 5, batch = 8 }

[[tasks]]
name = "vowels"
training = { cell = "gru", hidden = [4, 6] }

[[tasks]]
name = "averaging"
length = 4

[[methods]]
recipe = "l1"

[[methods]]
recipe = "dropout"
strengths = [0.1, 0.2]
"""


def test_data_sets_are_tasks_of_a_study(tmp_path):
    (tmp_path / "study.toml").write_text(REAL)
    study = load_study(tmp_path / "study.toml")
    cells = {(m.task, m.setting.settings.cell, m.setting.hidden) for m in study.plan().members}
    assert cells == {
        ("vowels, 4 hidden", "gru", 4),
        ("vowels, 6 hidden", "gru", 6),
        ("averaging, every", "tanh", 6),
    }
    with run_sweep(study, tmp_path / "store", executor="in-process") as store:
        rows = store.networks()
    sets = rows[rows["task"].str.startswith("vowels")]
    measured = ["test_error", "validation_error", "accuracy", "test_error_90", "active_hops"]
    assert sets[measured].notna().all(axis=None)
    assert rows.loc[rows["task"] == "averaging, every", "alignment"].notna().all()
    # the test split of a data set may not choose
    chosen = choose_strengths(sets).set_index(["task", "method"])["strength"]
    for (task, method), own in sets[sets["role"] == "validation"].groupby(["task", "method"]):
        least = own.sort_values(["validation_error", "strength"])["strength"].iloc[0]
        assert chosen[task, method] == least


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"vowels"', '"vowel"', "unknown task or data set 'vowel'.*did you mean 'vowels'"),
        ('cell = "gru"', 'cell = "gro"', "unknown cell 'gro'.*did you mean 'gru'"),
        ('cell = "gru"', 'cell = "gru", leak = 0.5', "a gru cell has no leak"),
        ("training = { cell", "length = 3\ntraining = { cell", "not built in, so length goes into options"),
        ("training = { cell", "options = { fraction = 1 }\ntraining = { cell", "did you mean 'fractions'"),
        ("training = { cell", "options = { fractions = [2] }\ntraining = { cell", "fractions must"),
        ('"vowels"', '"cartpole"\noptions = { episodes = 1000000000000 }', "study.toml: .*GiB of memory"),
        ('"vowels"', '"motions"\noptions = { every = { a = 1 } }', "numbers, texts and lists of them"),
        ("strengths = [0.1, 0.2]", "strengths = [1.5]", "dropout rate of method dropout must be"),
    ],
)
def test_mistakes_about_data_sets_are_told(tmp_path, old, new, says):
    assert old in REAL
    (tmp_path / "study.toml").write_text(REAL.replace(old, new))
    with pytest.raises(ParameterError, match=says):
        load_study(tmp_path / "study.toml")


@pytest.mark.parametrize("cell", CELLS)
def test_a_study_may_train_every_cell_of_the_registry(cell):
    values = {
        "name": "cells",
        "strengths": [1e-3],
        "seeds": {"validation": [0], "report": [1]},
        "training": {"cell": cell, "hidden": 4},
        "tasks": [{"name": "averaging", "length": 3}],
        "methods": [{"recipe": "l1"}],
    }
    assert {m.setting.settings.cell for m in make_study(values).plan().members} == {cell}
