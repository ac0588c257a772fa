"""Data sets: sizes, cuts, what is standardised, seeds, and one clear error for what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from places import ROOT

import hoplens as hl
from hoplens.data import building
from hoplens.data import chorales as chorale_loader
from hoplens.data.building import cut
from hoplens.data.text import LETTERS, _topics, simplify
from hoplens.seeds import split_generator

SIZES = {  # training, validation, test; L, I, O
    "vowels": (216, 54, 370, 29, 12, 9),
    "motions": (32, 8, 40, 100, 6, 4),
    "power": (53, 14, 1029, 24, 1, 2),
    "appliances": (80, 20, 100, 1460, 1, 10),
    "digits": (1078, 360, 359, 64, 1, 10),
    "digits-rows": (1078, 360, 359, 8, 8, 10),
    "text": (3200, 400, 400, 64, 32, 32),
    "folksongs": (4574, 1525, 1524, 64, 3, 3),
    "cartpole": (480, 160, 160, 64, 2, 2),
    "pendulum": (480, 160, 160, 64, 2, 1),
    "narma": (600, 200, 200, 64, 1, 1),
}
NAMES = hl.data.names()


@pytest.fixture(scope="module")
def sets() -> dict[str, hl.data.SequenceData]:
    return {name: hl.data.load(name) for name in NAMES}


def splits(data: hl.data.SequenceData) -> tuple[hl.data.Split, ...]:
    return data.train, data.validation, data.test


def rows(split: hl.data.Split) -> set[bytes]:
    return {x[:n].numpy().tobytes() for x, n in zip(split.inputs, split.lengths, strict=True)}


def test_official_sizes(sets: dict[str, hl.data.SequenceData]) -> None:
    for name, (*sizes, length, n_inputs, n_outputs) in SIZES.items():
        data = sets[name]
        assert [len(split) for split in splits(data)] == sizes, name
        assert max(split.length for split in splits(data)) == length
        assert (data.n_inputs, data.n_outputs) == (n_inputs, n_outputs)


@pytest.mark.parametrize("name", NAMES)
def test_targets_have_the_form(sets: dict[str, hl.data.SequenceData], name: str) -> None:
    data = sets[name]
    assert data.name == name
    for split in splits(data):
        n, length = len(split), split.length
        shape = {"class": (n,), "step class": (n, length)}.get(data.form, (n, length, data.n_outputs))
        assert split.targets.shape == shape
        padded = ~split.mask
        assert not split.inputs[padded].any()
        if data.form in ("class", "step class"):
            assert split.targets.dtype == torch.int64
            valid = split.targets if data.form == "class" else split.targets[split.mask]
            assert valid.min() >= 0
            assert valid.max() < data.n_outputs
        else:
            assert not split.targets[padded].any()
        if data.form == "step class":
            assert (split.targets[padded] == -100).all()
    if data.form == "class":
        assert set(data.train.targets.tolist()) == set(range(data.n_outputs))


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_sequence(sets: dict[str, hl.data.SequenceData], name: str) -> None:
    data = sets[name]
    found = [rows(split) for split in splits(data)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not found[a] & found[b]


@pytest.mark.parametrize("name", NAMES)
def test_standardised_on_training_steps_only(sets: dict[str, hl.data.SequenceData], name: str) -> None:
    data = sets[name]
    if name in ("text", "chorales"):
        assert not data.mean.any()
        assert (data.scale == 1).all()
        assert set(data.train.inputs.unique().tolist()) == {0.0, 1.0}
        return
    seen = data.train.inputs[data.train.mask].double()
    live = seen.std(dim=0) > 0  # digits have columns that are always white
    assert live.any()
    assert seen.mean(dim=0).abs().max() < 1e-5
    assert torch.allclose(
        seen.std(dim=0, correction=0)[live], torch.ones(int(live.sum())).double(), atol=1e-5
    )
    raw = data.train.inputs * data.scale + data.mean
    again = (raw[data.train.mask].mean(dim=0) - data.mean).abs().max()
    assert again < 1e-4 * (1 + data.mean.abs().max())
    if name in ("power", "appliances"):  # the archive standardised each of its series by itself
        return
    elsewhere = data.test.inputs[data.test.mask]  # the other splits are not centred by themselves
    assert elsewhere.mean(dim=0).abs().max() > 1e-4 or elsewhere.std(dim=0).sub(1).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_alone(sets: dict[str, hl.data.SequenceData], name: str) -> None:
    before = torch.get_rng_state()
    again, other = hl.data.load(name), hl.data.load(name, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.train.inputs, sets[name].train.inputs)
    assert torch.equal(again.test.targets, sets[name].test.targets)
    assert rows(other.validation) != rows(again.validation)


@pytest.mark.parametrize("name", ["vowels", "motions", "power", "appliances"])
def test_official_test_series_stay_or_are_pooled(sets: dict[str, hl.data.SequenceData], name: str) -> None:
    kept, other = sets[name], hl.data.load(name, seed=3)
    assert torch.equal(kept.test.targets, other.test.targets)  # whatever the seed
    pooled = hl.data.load(name, fractions=(0.5, 0.2, 0.3))
    assert sum(map(len, splits(pooled))) == sum(map(len, splits(kept)))
    shares = [len(split) / sum(map(len, splits(pooled))) for split in splits(pooled)]
    assert np.allclose(shares, (0.5, 0.2, 0.3), atol=0.03)
    counts = [torch.bincount(s.targets, minlength=pooled.n_outputs) / len(s) for s in splits(pooled)]
    assert (counts[0] - counts[2]).abs().max() < 0.03  # each class by itself


def test_vowels_have_the_classes_of_the_archive(sets: dict[str, hl.data.SequenceData]) -> None:
    data = sets["vowels"]
    assert torch.bincount(data.test.targets).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert torch.bincount(torch.cat([data.train.targets, data.validation.targets])).tolist() == [30] * 9
    lengths = torch.cat([split.lengths for split in splits(data)])
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)
    first = (data.test.inputs * data.scale + data.mean)[0, 0]
    assert torch.allclose(first[:3], torch.tensor([1.635533, 0.024848, 0.432087]), atol=1e-5)  # the file's
    assert data.output_names[0] == "speaker 1"


def test_every_so_many_steps(sets: dict[str, hl.data.SequenceData]) -> None:
    coarse, fine = hl.data.motions(every=4), sets["motions"]
    assert coarse.length == 25
    raw = fine.test.inputs * fine.scale + fine.mean
    assert torch.allclose(coarse.test.inputs * coarse.scale + coarse.mean, raw[:, ::4], atol=1e-4)
    with pytest.raises(hl.errors.ParameterError, match=r"1 \.\. 50"):
        hl.data.motions(every=51)
    assert hl.data.appliances(every=10).length == 146
    with pytest.raises(hl.errors.ParameterError, match=r"1 \.\. 730"):
        hl.data.appliances(every=731)


def test_digits_by_rows_are_the_same_images(sets: dict[str, hl.data.SequenceData]) -> None:
    def pixels(data: hl.data.SequenceData) -> torch.Tensor:
        return (data.test.inputs * data.scale + data.mean).reshape(len(data.test), 64).round()

    one, eight = pixels(sets["digits"]), pixels(sets["digits-rows"])
    assert torch.equal(one, eight)
    assert (one.min(), one.max()) == (0, 16)
    assert torch.equal(sets["digits"].test.targets, sets["digits-rows"].test.targets)


def decode(split: hl.data.Split) -> list[str]:
    return ["".join(LETTERS[n] for n in row) for row in split.inputs.argmax(dim=-1).tolist()]


def test_text_predicts_the_next_character_of_prose(sets: dict[str, hl.data.SequenceData]) -> None:
    data = sets["text"]
    codes = data.train.inputs.argmax(dim=-1)
    assert (data.train.inputs.sum(dim=-1) == 1).all()
    assert torch.equal(codes[:, 1:], data.train.targets[:, :-1])
    whole = " ".join(_topics())
    texts = [decode(split) for split in splits(data)]
    assert sum(text in whole for text in texts[0][:200]) > 150  # the rest crosses from topic to topic
    assert simplify('A  "B"\n7 é.') == "a ?b? 0 ?."
    # what windows share with the training text is phrases, no more than prose repeats by itself
    known = {text[n : n + 40] for text in texts[0] for n in range(25)}
    shared = np.mean([any(text[n : n + 40] in known for n in range(25)) for text in texts[2]])
    assert shared < 0.02
    short = hl.data.text(length=16, windows=50, fractions=(0.5, 0.25, 0.25))
    assert [len(split) for split in splits(short)] == [25, 12, 12]
    with pytest.raises(hl.errors.ParameterError, match="leaves no window"):
        hl.data.text(length=200_000)


def test_chorales_predict_the_next_chord(sets: dict[str, hl.data.SequenceData]) -> None:
    data = sets["chorales"]
    inputs, targets = data.train.inputs, data.train.targets
    both = data.train.mask[:, 1:]
    assert torch.equal(inputs[:, 1:][both], targets[:, :-1][both])
    voices = inputs.sum(dim=-1)[data.train.mask]
    assert (int(voices.min()), int(voices.max())) == (1, 4)
    assert data.length <= 64
    assert len(hl.data.chorales(length=16).train) > 2 * len(data.train)
    # transposed to no accidentals: nearly all pitches are white keys, and the last chords stand on C or A
    white = [not ("#" in name or "b" in name) for name in data.input_names]
    assert inputs.sum(dim=(0, 1))[white].sum() / inputs.sum() > 0.9
    with pytest.raises(hl.errors.ParameterError, match="step must be"):
        hl.data.chorales(step=0)


def test_transposition_is_the_shortest_way() -> None:
    found = {sharps: chorale_loader.__globals__["transposition"](sharps) for sharps in (-4, -1, 0, 1, 3)}
    assert found == {-4: 4, -1: -5, 0: 0, 1: 5, 3: 3}  # Ab up to C, F down to C, G up to C, A up to C


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.2), (1.0, 0.0, 0.0), "abc", (0.5, -0.1, 0.6)])
def test_wrong_fractions(fractions: tuple[float, ...]) -> None:
    for name in ("power", "digits", "text", "cartpole"):
        with pytest.raises(hl.errors.ParameterError, match="three numbers above 0 that add up to 1"):
            hl.data.load(name, fractions=fractions)


def test_misspelt_names_and_seeds() -> None:
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean 'chorales'"):
        hl.data.load("chorals")
    with pytest.raises(hl.errors.ParameterError, match="seed must be"):
        hl.data.load("power", seed=-1)


def test_a_missing_package_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    packages = {"vowels": "aeon", "appliances": "aeon", "digits": "sklearn"}
    for name, package in (packages | {"chorales": "music21", "folksongs": "music21"}).items():
        with pytest.raises(hl.errors.ParameterError, match=rf"{package}.*pip install 'hoplens\[data\]'"):
            hl.data.load(name)


def test_loading_imports_no_package(tmp_path: object) -> None:
    import subprocess
    import sys

    code = (
        "import sys, hoplens as hl; [hl.data.load(n) for n in ('power', 'digits', 'cartpole')]; "
        "assert not {'aeon', 'sklearn', 'music21', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_set_is_described() -> None:
    table = hl.data.describe()
    assert list(table.index) == list(NAMES)
    filled = table[["what", "form", "source", "licence", "citation"]]
    assert (filled.map(len) > 3).all(axis=None)


def test_cuts_hold_each_index_once() -> None:
    groups = np.array([0] * 30 + [1] * 10)
    parts = cut(groups, (0.5, 0.3, 0.2), split_generator(0))
    assert sorted(np.concatenate(parts)) == list(range(40))
    assert [int((groups[part] == 1).sum()) for part in parts] == [5, 3, 2]
    with pytest.raises(hl.errors.ParameterError, match="2 trials are too few"):
        cut(np.zeros(2), (0.5, 0.3, 0.2), split_generator(0), names="trials")


def own(form: str, n: int = 20) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(0)
    inputs = [generator.normal(3.0, 2.0, (4 + k % 3, 2)) for k in range(n)]
    targets = {
        "class": [np.array(k % 2) for k in range(n)],
        "step class": [np.arange(len(x)) % 3 for x in inputs],
        "step labels": [(x > 3).astype(float) for x in inputs],
        "step values": [x[:, :1] * 2 for x in inputs],
    }[form]
    return inputs, targets


@pytest.mark.parametrize(
    ("form", "n"), [("class", 2), ("step class", 3), ("step labels", 2), ("step values", 1)]
)
def test_own_sequences(form: str, n: int) -> None:
    inputs, targets = own(form)
    data = hl.data.from_sequences(inputs, targets, form=form, input_names=["left", "right"])
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    assert data.n_outputs == n
    assert data.input_names == ("left", "right")
    raw = hl.data.from_sequences(inputs, targets, form=form, standardise=False)
    assert torch.allclose(raw.train.inputs[0, 0], data.train.inputs[0, 0] * data.scale + data.mean, atol=1e-5)
    if form == "step values":  # targets are never scaled
        assert torch.allclose(
            raw.train.targets[raw.train.mask][:, 0], 2 * raw.train.inputs[raw.train.mask][:, 0]
        )


def test_a_constant_input_becomes_zero() -> None:
    inputs, targets = own("class")
    for x in inputs:
        x[:, 1] = 0.1
    data = hl.data.from_sequences(inputs, targets, form="class")
    assert data.train.inputs[..., 1].abs().max() < 1e-6


def test_wrong_own_sequences() -> None:
    inputs, targets = own("class")
    with pytest.raises(hl.errors.ShapeError, match="19 for 20"):
        hl.data.from_sequences(inputs, targets[1:], form="class")
    with pytest.raises(hl.errors.ShapeError, match="number 3 has shape"):
        hl.data.from_sequences([*inputs[:3], np.zeros((4, 3)), *inputs[4:]], targets, form="class")
    with pytest.raises(hl.errors.ShapeError, match="at least 1 step"):
        hl.data.from_sequences([np.zeros((0, 2)), *inputs[1:]], targets, form="class")
    with pytest.raises(hl.errors.NonFiniteError, match="sequence 0"):
        hl.data.from_sequences([inputs[0] * np.nan, *inputs[1:]], targets, form="class")
    with pytest.raises(hl.errors.ShapeError, match="target 0 of form 'step class'"):
        hl.data.from_sequences(inputs, targets, form="step class")
    with pytest.raises(hl.errors.ParameterError, match=r"whole numbers 0, 1, \.\.\., got -1"):
        hl.data.from_sequences(inputs, [np.array(-1), *targets[1:]], form="class")
    with pytest.raises(hl.errors.ParameterError, match="0 or 1"):
        hl.data.from_sequences(inputs, [x * 2 for x in inputs], form="step labels")
    with pytest.raises(hl.errors.UnknownNameError, match="did you mean"):
        hl.data.from_sequences(inputs, targets, form="clas")
    with pytest.raises(hl.errors.ParameterError, match="too few"):
        hl.data.from_sequences(inputs[:2], targets[:2], form="class")


def table_row(data: hl.data.SequenceData, what: str, package: str) -> str:
    sizes = ", ".join(str(len(split)) for split in splits(data))
    length = max(split.length for split in splits(data))
    cells = [f"`{data.name}`", what, package or "computed or standard library", sizes, length, data.n_inputs]
    return "| " + " | ".join(map(str, [*cells, data.n_outputs, data.form, data.licence])) + " |"


def test_the_guides_table_is_what_loads(sets: dict[str, hl.data.SequenceData]) -> None:
    guide = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, entry in hl.data.describe().iterrows():
        row = table_row(sets[str(name)], entry["what"], entry["package"])
        assert row in guide, f"docs/data.md should have this row:\n{row}"


def test_names_of_another_number_of_outputs_are_refused():
    rows = [torch.randn(4, 2).numpy() for _ in range(12)]
    for names in (["a"], ["a", "b", "c"]):
        with pytest.raises(hl.errors.ShapeError, match="must hold 2 names"):
            hl.data.from_sequences(rows, [n % 2 for n in range(12)], form="class", output_names=names)
