"""Training on data sets of sequences: losses, gradients, penalties, what depends on what, and messages."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from twins import assert_near

import hoplens as hl
from hoplens.data.sets import SequenceData, Split
from hoplens.data.streams import SetStream
from hoplens.models.cells import CELLS, make_cell
from hoplens.models.initial import create_ensemble
from hoplens.penalties.flow import FlowSpec
from hoplens.training.evaluation import evaluate_split
from hoplens.training.losses import chance_loss, losses, measures
from hoplens.training.objective import Objective, PenaltyGroup
from hoplens.training.recipes import PathwaySpec, Term
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

FORMS = ("class", "step class", "step labels", "step values")
each_form = pytest.mark.parametrize("form", FORMS)
each_cell = pytest.mark.parametrize("cell", CELLS)
each_mixing = pytest.mark.parametrize("cell", [cell for cell in CELLS if make_cell(cell).mixes])


def make_split(form, count, seed, *, length=6, whole=False):
    """Sequences whose first input, two steps late, decides the targets."""
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, length, 2, generator=source)
    lengths = torch.randint(3, length + 1, (count,), generator=source)
    lengths[0] = length
    if whole:
        lengths[:] = length
    mask = torch.arange(length) < lengths[:, None]
    inputs = inputs * mask[:, :, None]
    late = torch.cat([torch.zeros(count, 2), inputs[:, :-2, 0]], dim=1)  # (N, L)
    if form == "class":
        targets = (late[torch.arange(count), lengths - 1] > 0).long()
    elif form == "step class":
        targets = torch.where(mask, (late > 0).long(), -100)
    else:
        values = torch.stack([late, -0.5 * late], dim=2)
        targets = values if form == "step values" else (values > 0).float()
        targets = targets * mask[:, :, None]
    return Split(inputs, targets, lengths)


def make_data(form="class", *, whole=False, train=64):
    names = ("a", "b")
    return SequenceData(
        f"late {form}",
        form,
        make_split(form, train, 1, whole=whole),
        make_split(form, 40, 2, whole=whole),
        make_split(form, 50, 3, whole=whole),
        2,
        names,
        ("no", "yes"),
        torch.zeros(2),
        torch.ones(2),
        "drawn here",
        "none",
        "nobody",
    )


def literal_loss(outputs, split, n, form):
    """The loss of one sequence's read-outs (L, O) by loops over its valid steps; the number of read-outs."""
    steps, target = int(split.lengths[n]), split.targets[n]
    if form == "class":
        return functional.cross_entropy(outputs[steps - 1], target), 1
    total = torch.zeros((), dtype=outputs.dtype)
    for t in range(steps):
        if form == "step class":
            total = total + functional.cross_entropy(outputs[t], target[t])
        elif form == "step labels":
            for o in range(outputs.shape[1]):
                p = torch.sigmoid(outputs[t, o])
                total = total - torch.log(p if target[t, o] == 1 else 1 - p)
        else:
            total = total + sum((outputs[t, o] - target[t, o]) ** 2 for o in range(outputs.shape[1])) / 2
    return total, steps


@each_form
def test_losses_equal_loops_over_valid_steps(form):
    split = make_split(form, 5, 7)
    outputs = torch.randn(3, 5, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = outputs
    if form == "class":
        seen = outputs[:, torch.arange(5), split.lengths - 1]
    found = measures(seen, split, form)
    for e in range(3):
        parts = [literal_loss(outputs[e, n], split, n, form) for n in range(5)]
        wanted = sum(loss for loss, _ in parts) / sum(count for _, count in parts)
        assert_near(found["loss"][e], wanted, 1e-6)


def test_measures_are_what_they_say():
    split = Split(torch.ones(2, 3, 1), torch.tensor([[0, 1, -100], [1, 1, 0]]), torch.tensor([2, 3]))
    outputs = torch.zeros(1, 2, 3, 2)
    outputs[0, :, :, 1] = 2.0  # says 1 everywhere
    found = measures(outputs, split, "step class")
    assert float(found["accuracy"]) == pytest.approx(3 / 5)
    assert float(found["error"]) == pytest.approx(float(found["loss"]) / math.log(2))
    labels = Split(torch.ones(2, 3, 1), (split.targets == 1).float()[:, :, None], split.lengths)
    found = measures(torch.ones(1, 2, 3, 1), labels, "step labels")
    assert float(found["f1"]) == pytest.approx(2 * 3 / (5 + 3))  # 5 said, 3 true, 3 both
    values = Split(torch.ones(1, 2, 1), torch.tensor([[[1.0], [3.0]]]), torch.tensor([2]))
    found = measures(torch.full((1, 1, 2, 1), 2.0), values, "step values")
    assert float(found["error"]) == pytest.approx(1.0)  # the mean explains nothing


@each_form
def test_chance_is_the_loss_of_the_best_constant_guess(form):
    data = make_data(form, train=400)
    split = data.train
    bias = torch.zeros(1, 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([bias], max_iter=10)

    def loss():
        shape = (1, len(split), 2) if form == "class" else (1, *split.inputs.shape[:2], 2)
        return measures(bias.view(1, *[1] * (len(shape) - 2), 2).expand(shape), split, form)["loss"].sum()

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    wanted = float(loss().detach())
    assert chance_loss(data) == pytest.approx(wanted, rel=1e-3)


def objective_of(data, recipes, cell, *, at=None, strength=0.3, leak=0.4, batch=5):
    networks = [Network(recipe, strength, seed) for recipe in recipes for seed in (0, 1)]
    seeds = [n.seed for n in networks]
    ensemble = create_ensemble(
        seeds,
        [n.recipe.init for n in networks],
        cell=cell,
        n_inputs=2,
        hidden=4,
        n_outputs=2,
        length=data.length,
        leak=leak if make_cell(cell).blocks == 1 and cell != "tanh" else 1.0,
        dtype=torch.float64,
    )
    stream = SetStream(data, seeds, batch, torch.device("cpu"), torch.float64)
    options = {"readouts": "every", "length": data.length} if data.every_step else {}
    groups = [
        PenaltyGroup(
            slice(2 * n, 2 * n + 2),
            recipe.penalty(data.length, **options),
            torch.full((2,), strength, dtype=torch.float64),
        )
        for n, recipe in enumerate(recipes)
    ]
    return ensemble, stream, Objective(ensemble, stream, groups, length=data.length, at=at)


def plain_loss(ensemble, inputs, targets, lengths, form):
    sequences = inputs.permute(1, 3, 0, 2)
    if form == "class":
        outputs = ensemble.predict(sequences, lengths).mT[None]
    else:
        outputs = ensemble.predict_steps(sequences).permute(2, 0, 3, 1)
    return losses(outputs, targets, lengths, form)


@each_cell
@each_form
@pytest.mark.parametrize("whole", [False, True])
def test_gradients_are_those_of_plain_autograd(cell, form, whole):
    data = make_data(form, whole=whole)
    recipes = [
        hl.recipes.none(),
        hl.Recipe("mixed", (Term(PathwaySpec("hops")), Term(lambda horizon, **_: hl.WeightPenalty(), 0.2))),
        hl.recipes.paper(),
    ]
    ensemble, stream, objective = objective_of(data, recipes, cell)
    inputs, targets, lengths = stream.batch(0)
    got = objective.run(inputs, targets, lengths, progress=0.5)
    weight, readout, offset = (t.detach().requires_grad_() for t in ensemble.tensors)
    twin = replace(ensemble, weight=weight, readout=readout, offset=offset)
    wanted = plain_loss(twin, inputs, targets, lengths, form)
    assert_near(got, wanted)
    net = twin.pathways()
    options = {"readouts": "every", "length": data.length} if data.every_step else {}
    hops = hl.PathwayPenalty(data.length, **options)(net[2:4])
    sums = hl.PathwayPenalty(data.length, across="sum", **options)(net[4:])
    l1 = weight[2:4, :-1].abs().sum(dim=(1, 2)) + readout[2:4].abs().sum(dim=(1, 2))
    total = wanted.sum() + 0.3 * (hops + 0.2 * l1 + sums).sum()
    slopes = torch.autograd.grad(total, (weight, readout, offset))
    there = ensemble.structure()
    for own, slope in zip(objective.grads, (slopes[0] * there, *slopes[1:]), strict=True):
        assert_near(own, slope, 1e-10)


@each_cell
def test_the_mean_point_is_that_of_the_batch(cell):
    data = make_data("class")
    recipe = hl.Recipe("hops", (Term(PathwaySpec("hops")),))
    ensemble, stream, objective = objective_of(data, [recipe], cell, at="mean")
    inputs, targets, lengths = stream.batch(0)
    objective.run(inputs, targets, lengths, progress=0.0)
    twin = replace(ensemble, weight=ensemble.weight.detach().requires_grad_())
    loss = plain_loss(twin, inputs, targets, lengths, "class").sum()
    values = []
    for n in range(2):
        model = ensemble.model(n)
        sequences = [inputs[: int(lengths[n, b]), n, :, b] for b in range(5)]
        packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
        own = hasattr(model.core, "to_hoplens")
        core = model.core.to_hoplens() if own else model.core
        readout = model.readout.weight if own else model.readout
        net = hl.read(core, readout=readout, at="mean", inputs=packed)
        values.append(hl.PathwayPenalty(data.length)(net))
    state, x = objective._mean_point(slice(0, 2), inputs, lengths)
    penalty = hl.PathwayPenalty(data.length)(twin.pathways("point", state=state, x=x))
    assert_near(penalty, torch.stack(values))
    (slope,) = torch.autograd.grad(loss + 0.3 * penalty.sum(), twin.weight)
    assert_near(objective.grads[0], slope * ensemble.structure(), 1e-10)


@each_cell
@each_form
def test_it_learns(cell, form):
    data = make_data(form, whole=True, train=400)
    # gates that see the input alone keep what comes, not what would be of use
    share = 0.95 if cell == "mingru" and form == "class" else 0.7
    result = hl.train(data, hl.recipes.none(), seeds=(0, 1), cell=cell, hidden=8, steps=300, lr=3e-2)
    assert result.metrics["test_loss"].max() < share * chance_loss(data)
    assert (result.metrics["diverged_at"] == -1).all()


@pytest.fixture(scope="module")
def mixed():
    recipes = [hl.recipes.l1(), hl.recipes.dropout(), hl.recipes.none(), hl.recipes.recommended()]
    return hl.train(make_data(), recipes, seeds=(3, 4), strengths=(1e-3, 0.2), cell="gru", hidden=6, steps=60)


def test_there_is_one_network_for_every_recipe_strength_and_seed(mixed):
    rows = mixed.metrics[["method", "strength", "seed"]].to_numpy().tolist()
    assert rows[:4] == [["L1", 0.001, 3], ["L1", 0.001, 4], ["L1", 0.2, 3], ["L1", 0.2, 4]]
    assert rows[8:10] == [["none", 0.0, 3], ["none", 0.0, 4]]
    assert len(rows) == 14
    assert len(mixed.networks) == mixed.ensemble.size == 14


@pytest.mark.parametrize("row", [1, 5, 8, 12])
def test_a_network_trained_alone_comes_out_the_same(mixed, row):
    network = mixed.networks[row]
    alone = train_networks(mixed.task, [network], Settings(hidden=6, steps=60, batch=32, cell="gru"))
    for own, other in zip(alone.ensemble.tensors, mixed.ensemble.tensors, strict=True):
        torch.testing.assert_close(own[0], other[row], rtol=1e-3, atol=1e-4)
    assert_near(alone.losses[:5, 0], mixed.losses[:5, row], 1e-5)


def test_metrics_are_those_of_the_models(mixed):
    split = mixed.task.test
    for row in (0, 9, 13):
        model = mixed.model(row)
        assert model.info.input_names == ("a", "b")
        with torch.no_grad():
            outputs = model(split.inputs, split.lengths)
        right = (outputs.argmax(1) == split.targets).float().mean()
        assert mixed.metrics["accuracy"][row] == pytest.approx(float(right))
        assert mixed.metrics["test_error"][row] == pytest.approx(1 - float(right))
        loss = functional.cross_entropy(outputs, split.targets)
        assert mixed.metrics["test_loss"][row] == pytest.approx(float(loss), rel=1e-4)
    assert (mixed.metrics["nonzero"] == 3 * 36).all()


def test_the_graph_of_the_result_has_names_and_is_linearised_at_the_origin(mixed):
    net = mixed.pathways
    assert net.input_names == ("a", "b")
    assert net.output_names == ("no", "yes")
    assert "origin" in net.provenance
    model = mixed.model(2)
    torch.testing.assert_close(net.w_rec[2], hl.read(model.core, readout=model.readout).w_rec)


def test_the_global_random_state_is_neither_used_nor_touched():
    before = torch.get_rng_state()
    options = {"seeds": (0,), "strengths": (0.3,), "steps": 3, "hidden": 4}
    recipes = [hl.recipes.dropout(), hl.Recipe("flow", (Term(FlowSpec()),))]
    first = hl.train(make_data("step class"), recipes, **options)
    torch.manual_seed(99)
    again = hl.train(make_data("step class"), recipes, **options)
    torch.set_rng_state(before)
    assert torch.equal(first.ensemble.weight, again.ensemble.weight)


def test_every_sequence_comes_once_before_any_comes_again():
    data = make_data(train=12)
    stream = SetStream(data, [0, 1], 4, torch.device("cpu"), torch.float32)
    flat = data.train.inputs.flatten(1)
    seen = {0: [], 1: []}
    for step in range(6):
        inputs, targets, lengths = stream.batch(step)
        assert inputs.shape == (int(lengths.max()), 2, 2, 4)
        for e in range(2):
            for b in range(4):
                own = torch.zeros(data.length, 2)
                own[: len(inputs)] = inputs[:, e, :, b]
                (row,) = (flat == own.flatten()).all(dim=1).nonzero()[:, 0].tolist()
                assert targets[e, b] == data.train.targets[row]
                assert lengths[e, b] == data.train.lengths[row]
                seen[e].append(row)
    for rows in seen.values():
        assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12))
        assert rows[:12] != rows[12:]
    assert seen[0] != seen[1]


def test_dropout_keeps_the_mean_and_has_one_mask_a_sequence():
    data = make_data("step values")
    networks = [Network(hl.recipes.dropout(), 0.4, seed) for seed in (0, 1)]
    _, stream, objective = objective_of(data, [hl.recipes.none()], "tanh", batch=64)
    objective.rates = torch.tensor([n.strength for n in networks], dtype=torch.float64)
    inputs, _, _ = stream.batch(0)
    drop, mask = objective._masks(inputs)
    assert drop.shape == (2, 2, 64)
    assert mask.shape == (2, 4, 64)
    for factors in (drop, mask):
        assert set(factors.unique().tolist()) == {0.0, 1 / 0.6}
        assert float(factors.mean()) == pytest.approx(1.0, abs=0.2)


def test_weight_decay_shrinks_all_weights_but_biases():
    data = make_data()
    plain = hl.train(data, hl.recipes.none(), steps=1, hidden=4, lr=0.1, decay=0.0)
    decayed = hl.train(
        data, hl.recipes.weight_decay(), strengths=(0.5,), steps=1, hidden=4, lr=0.1, decay=0.0
    )
    for n, factor in enumerate((0.95, 0.95, 1.0)):
        torch.testing.assert_close(
            decayed.ensemble.tensors[n][:, :-1], factor * plain.ensemble.tensors[n][:, :-1]
        )
    torch.testing.assert_close(decayed.ensemble.weight[:, -1], plain.ensemble.weight[:, -1])


@each_cell
def test_gradual_pruning_reaches_its_amount_in_all_gates_together(cell):
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.75, start=0.2, stop=0.8))
    result = hl.train(make_data(), recipe, cell=cell, hidden=8, steps=50)
    real = int(result.ensemble.structure()[:8].sum())
    assert result.metrics["nonzero"].tolist() == [real - round(0.75 * real)]


@each_mixing
def test_weights_outside_a_mask_stay_zero_in_every_gate(cell):
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    recipes = [hl.recipes.none(), hl.recipes.hops()]
    result = hl.train(make_data(), recipes, cell=cell, hidden=8, steps=30, mask=mask)
    for n in range(2):
        core = result.model(n).core
        for block in core.weight_hh_l0.detach().split(8):
            assert not bool(block[~mask].any())
            assert bool(block[mask].all())


@pytest.mark.parametrize("cell", [cell for cell in CELLS if not make_cell(cell).mixes])
@pytest.mark.parametrize("option", ["mask", "w_rec"])
def test_units_that_do_not_hear_of_each_other_have_no_recurrent_weights_to_give(cell, option):
    with pytest.raises(hl.errors.ParameterError, match=f"do not hear of each other, so leave {option}= out"):
        hl.train(make_data(), "none", cell=cell, hidden=8, steps=2, **{option: torch.ones(8, 8)})


@each_mixing
def test_training_may_start_from_a_given_recurrent_matrix(cell):
    start = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) / 6
    ensemble = create_ensemble(
        [0, 1], ["orthogonal"] * 2, cell=cell, n_inputs=2, hidden=6, n_outputs=1, length=5, w_rec=start
    )
    for n in range(2):
        blocks = ensemble.model(n).core.weight_hh_l0.detach().split(6)
        torch.testing.assert_close(blocks[2 if cell == "lstm" else -1], start)  # i, f, g, o; r, z, n


@each_mixing
def test_delay_lines_are_there_in_every_cells_linearisation(cell):
    options = {"n_inputs": 2, "hidden": 16, "n_outputs": 3, "length": 4, "dtype": torch.float64}
    plain = create_ensemble([4], ["delay"], cell="tanh", **options).pathways()
    leak = 0.4 if cell == "leaky" else 1.0
    other = create_ensemble([4], ["delay"], cell=cell, leak=leak, **options).pathways()
    lines = slice(0, 8)  # two lines of four
    rows = slice(16, 24) if cell == "lstm" else lines  # of an LSTM its cells c hand on what they hold

    def own(net, rows):
        return hl.Pathways(
            net.w_in[:, rows], net.w_rec[:, rows, rows], torch.eye(8, dtype=torch.float64)[None]
        )

    if cell == "lstm":  # c of a line: its own forgetting, and what comes by way of h = o tanh(c)
        by_h, by_c = other.w_rec[:, rows, :8], other.w_rec[:, rows, rows]
        shown = other.w_rec[:, :8, rows].diagonal(dim1=1, dim2=2) / by_c.diagonal(dim1=1, dim2=2)
        got = hl.Pathways(other.w_in[:, rows], by_h * shown[:, None] + by_c, own(plain, lines).w_out)
        torch.testing.assert_close(other.w_out[:, :, :8] * shown[:, None], plain.w_out[:, :, :8])
    else:
        got = own(other, rows)
    assert_near(hl.hop_maps(got, 7).values, hl.hop_maps(own(plain, lines), 7).values, 1e-10)
    assert bool(hl.hop_maps(got, 7).values[:, 3].any())


@each_cell
def test_units_outside_delay_lines_start_as_without_them(cell):
    options = {"n_inputs": 2, "hidden": 16, "n_outputs": 3, "length": 4, "cell": cell, "leak": 0.4}
    lines, without = (create_ensemble([4], [init], **options) for init in ("delay", "orthogonal"))
    blocks = lines.kernel.blocks
    for one, other in zip(lines.weight.chunk(blocks, 2), without.weight.chunk(blocks, 2), strict=True):
        torch.testing.assert_close(one[:, 16:, 8:], other[:, 16:, 8:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cell": "rnn"}, hl.errors.UnknownNameError, "unknown cell 'rnn'"),
        ({"horizon": 7}, hl.errors.ShapeError, "horizon must be at most the 6 steps of the longest sequence"),
        ({"at": "somewhere"}, hl.errors.UnknownNameError, "unknown at 'somewhere'"),
        ({"seeds": ()}, hl.errors.ParameterError, "nothing to train"),
        ({"strengths": (-1.0,), "recipe": hl.recipes.l1()}, hl.errors.ParameterError, "strength must be"),
        (
            {"strengths": (1.0,), "recipe": hl.recipes.dropout()},
            hl.errors.ParameterError,
            "dropout rate must be",
        ),
        ({"mask": torch.ones(3, 3)}, hl.errors.ShapeError, "mask must have shape (32, 32)"),
        ({"w_rec": torch.ones(3, 3)}, hl.errors.ShapeError, "w_rec must have shape (32, 32)"),
        ({"w_rec": torch.full((32, 32), math.nan)}, hl.errors.ParameterError, "w_rec must be finite"),
        (
            {"at": "raw", "cell": "gru", "recipe": hl.recipes.paper()},
            hl.errors.ParameterError,
            'use at="origin"',
        ),
    ],
)
def test_options_are_checked(options, error, message):
    recipe = options.pop("recipe", hl.recipes.none())
    with pytest.raises(error, match=re.escape(message)):
        hl.train(make_data(), recipe, steps=2, **options)


def test_data_sets_and_settings_are_checked():
    with pytest.raises(hl.errors.UnsupportedModelError, match=r"a task of hoplens\.tasks\.make, a data set"):
        hl.train(torch.zeros(3), hl.recipes.none())
    with pytest.raises(hl.errors.ParameterError, match="a gru cell has no leak"):
        Settings(cell="gru", leak=0.5)
    with pytest.raises(
        hl.errors.UnknownNameError, match=r"unknown task or data set 'vowel'.*did you mean 'vowels'"
    ):
        hl.train("vowel", "none")


def test_every_recipe_and_cell_learns_a_task_too():
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=4)
    for cell in CELLS:
        result = hl.train(task, ["none", "dropout", "paper"], cell=cell, hidden=6, steps=60, lr=3e-2)
        assert (result.metrics["test_error"] < 0.9).all()
        x = torch.randn(3, 4, 2)
        with torch.no_grad():
            assert_near(result.model(1)(x), result.predict(x)[1], 1e-5)


def test_names_and_numbers_stand_for_lists():
    task = hl.tasks.make("averaging", modules=2, module_size=1, length=3)
    few = {"hidden": 3, "steps": 3, "batch": 2}
    short = hl.train(task, "l1", seeds=2, strengths=0.1, **few)
    long = hl.train(task, [hl.recipes.l1()], seeds=[0, 1], strengths=[0.1], **few)
    assert short.metrics.equals(long.metrics)
    assert hl.train("averaging", "none", **few).metrics["method"].tolist() == ["none"]


def test_a_result_is_saved_and_loaded_whole(mixed, tmp_path):
    loaded = hl.TrainingResult.load(mixed.save(tmp_path / "run.safetensors"))
    assert loaded.metrics.equals(mixed.metrics)
    assert torch.equal(loaded.losses, mixed.losses)
    x = torch.randn(2, 6, 2)
    assert torch.equal(loaded.predict(x), mixed.predict(x))
    assert loaded.model(3).info == mixed.model(3).info
    assert loaded.pathways.output_names == ("no", "yes")
    assert loaded.best == mixed.best == int(mixed.metrics["test_error"].argmin())
    assert "14 gru networks of 6 units" in repr(loaded)
    (tmp_path / "cut").write_bytes((tmp_path / "run.safetensors").read_bytes()[:700])
    for wrong in (tmp_path / "cut", tmp_path / "nowhere"):
        with pytest.raises(hl.errors.FileError):
            hl.TrainingResult.load(wrong)
    figure = loaded.plot()
    assert len(figure.axes) >= 2


def test_other_uses_of_the_strength_take_no_terms():
    with pytest.raises(hl.errors.ParameterError, match="takes no terms"):
        hl.Recipe("both", (Term(PathwaySpec()),), uses="dropout")


def test_evaluation_in_parts_is_evaluation_in_one(mixed, monkeypatch):
    whole = evaluate_split(mixed.ensemble, mixed.task.test, "class")
    monkeypatch.setattr("hoplens.training.evaluation.EVALUATION_CELLS", 1)
    for name, values in evaluate_split(mixed.ensemble, mixed.task.test, "class").items():
        assert_near(values, whole[name], 1e-5)


def test_a_network_that_diverges_is_recorded():
    options = {"seeds": (0,), "strengths": (1e30,), "steps": 40, "hidden": 4, "lr": 1e18, "clip": 1e30}
    result = hl.train(make_data("step values"), hl.recipes.l2(), **options)
    assert int(result.diverged_at[0]) >= 0
    assert math.isnan(result.metrics["test_error"][0])


def test_other_weights_and_splits_can_be_evaluated(mixed):
    pruned = mixed.ensemble.clone()
    pruned.recurrent().zero_()
    assert mixed.evaluate("validation")["loss"].shape == (14,)
    assert not torch.equal(mixed.evaluate("train")["loss"], mixed.evaluate("train", pruned)["loss"])
    with pytest.raises(hl.errors.UnknownNameError, match="unknown split"):
        mixed.evaluate("tests")


@each_cell
def test_inputs_enter_and_read_outs_see_the_given_units_only(cell):
    entered, shown = torch.arange(8) < 3, torch.arange(8) >= 5
    recipes = [hl.recipes.none(), hl.recipes.recommended(), hl.recipes.weight_decay()]
    result = hl.train(
        make_data(), recipes, cell=cell, hidden=8, steps=20, input_units=entered, output_units=shown
    )
    for n in range(3):
        model = result.model(n)
        own = model.core
        into = own.weight_ih_l0.split(8) if cell != "lru" else (own.b_re, own.b_im, own.d)
        for block in (part.detach() for part in into):
            assert not bool(block[~entered].any())
            # a relu unit that is never active has no gradient, and lines start with inputs of 0
            assert bool(block[entered].any() if cell == "relu" else block[entered].all())
        assert not bool(model.readout.weight.detach()[:, ~shown].any())
        assert bool(model.readout.weight.detach()[:, shown].all())
    with pytest.raises(hl.errors.ShapeError, match=r"input_units must be a bool tensor of shape \(8,\)"):
        hl.train(make_data(), recipes, hidden=8, steps=2, input_units=entered[:4])
