"""What `hoplens.train` promises: numbers of a seed, independence of the batch, divergence, pruning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from twins import assert_near

import hoplens as hl
from hoplens.training.recipes import Term
from hoplens.training.settings import Network, Settings
from hoplens.training.trainer import Trainer

TASK = hl.tasks.make("subtraction", signal="sparse", lag=2, modules=2, module_size=2, length=4)
QUICK = {"hidden": 6, "steps": 40, "batch": 8, "dtype": torch.float64}
MIXED = (hl.recipes.none(), hl.recipes.l1(), hl.recipes.paper())


def train(recipe, **options):
    return hl.train(TASK, recipe, **{**QUICK, **options})


def tensors(result):
    return result.ensemble.tensors


def by_hops(length):
    return hl.PathwayPenalty(length)


@pytest.fixture(scope="module")
def mixed():
    return train(MIXED, seeds=(0, 1), strengths=(1e-3, 1e-2))


# one batch of many networks


def test_there_is_one_network_for_every_recipe_strength_and_seed(mixed):
    got = list(zip(mixed.metrics["method"], mixed.metrics["strength"], mixed.metrics["seed"], strict=True))
    names = [recipe.name for recipe in MIXED]
    wanted = [(names[0], 0.0, seed) for seed in (0, 1)]  # without a penalty strengths mean nothing
    wanted += [(name, s, seed) for name in names[1:] for s in (1e-3, 1e-2) for seed in (0, 1)]
    assert got == wanted
    assert mixed.pathways.batch_shape == (10,)
    assert mixed.losses.shape == (40, 10)
    assert mixed.predict(torch.zeros(3, 4, 4, dtype=torch.float64)).shape == (10, 3, 2)


@pytest.mark.parametrize("row", range(0, 10, 3))
def test_a_network_trained_alone_comes_out_the_same(mixed, row):
    network = mixed.metrics.iloc[row]
    recipe = next(recipe for recipe in MIXED if recipe.name == network["method"])
    alone = train(recipe, seeds=[int(network["seed"])], strengths=[network["strength"]])
    for whole, one in zip(tensors(mixed), tensors(alone), strict=True):
        assert_near(whole[row], one[0], 1e-9)
    assert_near(mixed.losses[:, row], alone.losses[:, 0], 1e-9)
    assert alone.metrics["test_error"][0] == pytest.approx(network["test_error"], rel=1e-9)


def test_the_order_of_recipes_and_seeds_changes_rows_only(mixed):
    turned = train(MIXED[::-1], seeds=(1, 0), strengths=(1e-2, 1e-3))
    keys = ["method", "strength", "seed"]
    places = {tuple(row): n for n, row in enumerate(turned.metrics[keys].itertuples(index=False, name=None))}
    order = [places[row] for row in mixed.metrics[keys].itertuples(index=False, name=None)]
    assert sorted(order) == list(range(10))
    for a, b in zip(tensors(mixed), tensors(turned), strict=True):
        assert_near(a, b[order], 1e-9)


def test_recipes_seeds_and_strengths_all_matter(mixed):
    weights = mixed.ensemble.weight
    for a in range(10):
        for b in range(a):
            assert float((weights[a] - weights[b]).abs().max()) > 1e-6


def test_a_recipe_given_twice_keeps_its_rows_apart():
    l1, none = hl.recipes.l1(), hl.recipes.none()
    result = train((l1, none, l1), seeds=(0, 1))
    assert result.metrics["method"].tolist() == [l1.name] * 2 + [none.name] * 2 + [l1.name] * 2
    for rows, recipe in (([0, 1], l1), ([2, 3], none), ([4, 5], l1)):
        alone = train(recipe, seeds=(0, 1))
        assert_near(result.ensemble.weight[rows], alone.ensemble.weight, 1e-9)
        assert_near(result.losses[:, rows], alone.losses, 1e-9)


def test_every_seed_has_data_of_its_own(monkeypatch):
    used, sample = [], hl.tasks.Task.sample

    def watched(task, n, *, generator, dtype):
        used.append(generator.initial_seed())
        return sample(task, n, generator=generator, dtype=dtype)

    monkeypatch.setattr(hl.tasks.Task, "sample", watched)
    train(hl.recipes.l1(), seeds=(0, 1, 2), strengths=(1e-3, 1e-2), steps=5)
    # one stream a seed, shared by both strengths, another for the test; and none the seed of the weights
    assert len(set(used)) == 4
    assert not set(used) & {0, 1, 2}


def test_networks_of_one_seed_see_the_same_data(mixed):
    # the first loss is taken before any step: with the same start and data it is the same
    first = mixed.losses[0]
    seeds = torch.tensor(mixed.metrics["seed"].to_numpy())
    for seed in (0, 1):
        assert_near(first[seeds == seed], first[seeds == seed][:1].expand(5), 1e-12)
    assert abs(float(first[seeds == 0][0] - first[seeds == 1][0])) > 1e-3


# the numbers of a seed


def test_training_twice_gives_the_same_bits(mixed):
    again = train(MIXED, seeds=(0, 1), strengths=(1e-3, 1e-2))
    assert all(torch.equal(a, b) for a, b in zip(tensors(mixed), tensors(again), strict=True))
    assert torch.equal(mixed.losses, again.losses)
    assert mixed.metrics.equals(again.metrics)


def test_the_global_random_state_is_neither_used_nor_touched():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the legacy global state is what is being watched
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        results.append(train(hl.recipes.paper()))
        assert torch.equal(torch_state, torch.get_rng_state())
        assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(tensors(results[0]), tensors(results[1]), strict=True))


def test_other_global_settings_are_left_alone():
    settings = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())
    train(hl.recipes.paper())
    assert settings == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())


# it learns, and penalties do what they say


# of 16 seeds the least alignment was 0.98, and 0.87 where only the side of 0 is taught
@pytest.mark.parametrize(("form", "aligned"), [("regression", 0.95), ("sign", 0.8)])
def test_it_learns(form, aligned):
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3, form=form)
    result = hl.train(task, hl.recipes.none(), hidden=16, steps=300, lr=1e-2, seeds=(0, 1))
    assert (result.metrics["test_error"] < 0.2).all()
    assert (result.metrics["accuracy"] > 0.9).all()
    assert result.losses[-1].max() < 0.5 * result.losses[0].min()
    assert (hl.alignment(hl.hop_maps(result.pathways, horizon=3), task.target_maps) > aligned).all()


def test_metrics_are_those_of_the_predictions(mixed):
    inputs, targets = TASK.sample(20_000, generator=123, dtype=torch.float64)
    error = (mixed.predict(inputs) - targets).square().mean(dim=(1, 2)) / targets.var()
    right = ((mixed.predict(inputs) > 0) == (targets > 0)).double().mean(dim=(1, 2))
    # other test data than the library's own, so equal but for sampling
    np.testing.assert_allclose(mixed.metrics["test_error"], error, rtol=0.1)
    np.testing.assert_allclose(mixed.metrics["accuracy"], right, atol=0.05)


@pytest.mark.parametrize(
    ("recipe", "size"),
    [
        (hl.recipes.l1(), hl.WeightPenalty()),
        (hl.recipes.l2(), hl.WeightPenalty("l2")),
        (hl.recipes.paper(), hl.PathwayPenalty(4, across="sum")),
        (hl.Recipe("hops", (Term(by_hops),)), hl.PathwayPenalty(4)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_stronger_penalty_makes_what_it_penalises_smaller(recipe, size):
    result = train(recipe, strengths=(0.0, 1e-2, 1.0), steps=100, lr=1e-2)
    values = size(result.pathways).tolist()
    assert values[2] < 0.7 * values[1] < 0.7 * values[0]


def test_one_step_goes_down_the_slope_of_the_penalty():
    # Adam's first step is lr times the sign of the gradient, and so strong a penalty settles every sign
    start, moved = (train(MIXED[2], steps=1, strengths=[1e6], lr=lr) for lr in (1e-12, 1e-3))
    leaves = [tensor.clone().requires_grad_() for tensor in tensors(start)]
    net = hl.Ensemble(*leaves).pathways()
    hl.PathwayPenalty(4, across="sum")(net).sum().backward()
    (weight, readout, _), (moved_weight, moved_readout, _) = leaves, tensors(moved)
    wanted = -1e-3 * weight.grad[:, :-1].sign()  # the last row is the bias, which no penalty knows
    assert_near((moved_weight - weight)[:, :-1], wanted, 1e-6)
    assert_near(moved_readout - readout, -1e-3 * readout.grad.sign(), 1e-6)


def test_a_gradient_whose_square_overflows_is_clipped_all_the_same():
    start, moved = (
        train(MIXED[1], steps=1, strengths=[1e30], lr=lr, dtype=torch.float32) for lr in (1e-12, 1e-3)
    )
    weight = start.ensemble.weight[:, :-1]
    # Adam's first step is lr, wherever an entry does not vanish beside its epsilon
    assert_near((moved.ensemble.weight[:, :-1] - weight).double(), (-1e-3 * weight.sign()).double(), 1e-3)


def test_the_weight_of_a_term_multiplies_the_strength():
    double, single = (hl.Recipe("hops", (Term(by_hops, weight),)) for weight in (2.0, 1.0))
    one, other = train(double, strengths=[0.05]), train(single, strengths=[0.1])
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert_near(a, b, 1e-9)


def test_a_schedule_is_followed():
    late = hl.Recipe("late", (Term(by_hops, 1.0, hl.schedules.window(0.5, 1.0)),))
    early = hl.Recipe("early", (Term(by_hops, 1.0, hl.schedules.window(0.0, 0.5)),))
    none, first, second = (train(recipe, strengths=[0.1]) for recipe in (hl.recipes.none(), early, late))
    assert_near(second.losses[:21], none.losses[:21], 1e-9)
    assert float((second.losses[22:] - none.losses[22:]).abs().max()) > 1e-4
    assert float((first.losses[2:20] - none.losses[2:20]).abs().max()) > 1e-4


def test_initialisations_are_those_of_the_recipe():
    starts = [hl.Recipe(init, init=init) for init in ("gaussian", "orthogonal")]
    w_rec = train(starts, steps=1, lr=1e-9).pathways.w_rec
    eye = torch.eye(6, dtype=torch.float64)
    assert float((w_rec[0] @ w_rec[0].T - eye).abs().max()) > 0.1
    assert_near(w_rec[1] @ w_rec[1].T, eye, 1e-6)


def test_progress_is_reported():
    seen = []
    train(hl.recipes.none(), steps=60, progress=lambda done, steps: seen.append((done, steps)))
    assert seen[-1] == (60, 60)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


# the plain way, leaky units, masks, own tasks


@pytest.mark.parametrize("cell", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("leak", [1.0, 0.4])
@pytest.mark.parametrize("form", ["regression", "sign"])
def test_the_kernels_follow_the_plain_way(cell, leak, form):
    task = hl.tasks.make("subtraction", modules=2, module_size=2, length=5, form=form)
    pruned = hl.Recipe("thin", (Term(by_hops),), pruning=hl.GradualPruning(0.5, start=0.3, stop=0.6))
    recipes = (*MIXED, hl.recipes.l2(), hl.recipes.recommended(), pruned)
    options = {**QUICK, "seeds": (0, 1), "strengths": (1e-3, 1e-1), "cell": cell, "leak": leak}
    fast, plain = (hl.train(task, recipes, eager=eager, **options) for eager in (False, True))
    assert_near(fast.losses, plain.losses, 1e-9)
    for own, twin in zip(tensors(fast), tensors(plain), strict=True):
        assert_near(own, twin, 1e-7)
    assert float((fast.losses[0] - fast.losses[-1]).abs().min()) > 1e-4


def test_a_leak_smooths_the_state():
    result = train(hl.recipes.none(), leak=0.25)
    assert result.ensemble.leak == 0.25
    net = result.pathways
    loops = net.w_rec.diagonal(dim1=-2, dim2=-1) - 0.25 * result.ensemble.recurrent().diagonal(dim1=1, dim2=2)
    assert_near(loops, torch.full_like(loops, 0.75))
    ensemble = hl.Ensemble(*tensors(result), "linear", 0.25)  # then the hop maps are the whole answer
    impulse = torch.zeros(4, 5, 4, dtype=torch.float64)
    impulse[torch.arange(4), 1, torch.arange(4)] = 1.0  # lag 3
    still = torch.zeros(1, 5, 4, dtype=torch.float64)
    change = ensemble.predict(impulse) - ensemble.predict(still)
    assert_near(change[0].T, hl.hop_maps(ensemble.pathways(), horizon=4).values[0, 3])


def test_weights_outside_the_mask_stay_zero():
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    result = train(MIXED, mask=mask, strengths=(1e-2,))
    w_rec = result.pathways.w_rec
    assert not w_rec[:, ~mask].any()
    assert (w_rec[:, mask] != 0).all()
    plain = train(MIXED, mask=mask, strengths=(1e-2,), eager=True)
    assert_near(result.ensemble.weight, plain.ensemble.weight, 1e-7)


def test_each_network_may_have_its_own_mask():
    recipes = (MIXED[1], MIXED[0], MIXED[1])  # the batch is sorted by recipe, masks follow
    masks = torch.stack([torch.eye(6), torch.ones(6, 6), torch.ones(6, 6).tril()]).bool()
    result = train(recipes, mask=masks)
    for w_rec, mask in zip(result.pathways.w_rec, masks, strict=True):
        assert torch.equal(w_rec != 0, mask)


def test_released_weights_stay_inside_the_mask():
    mask = torch.ones(6, 6).tril().bool()
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.8, start=0.2, stop=0.5, release=0.7))
    assert torch.equal(train(recipe, mask=mask, steps=100).pathways.w_rec[0] != 0, mask)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.ones(5, 6), hl.errors.ShapeError),
        (torch.ones(2, 6, 6), hl.errors.ShapeError),
        (torch.full((6, 6), 0.5), hl.errors.ParameterError),
    ],
    ids=["square", "networks", "weights"],
)
def test_a_mask_is_checked(mask, error):
    with pytest.raises(error, match="mask must"):
        train(hl.recipes.none(), mask=mask)


class Echo:
    """An own task with a target after every step: what came in one step ago."""

    n_inputs, n_outputs, length, form = 2, 2, 4, "regression"

    def sample(self, n, *, generator, dtype):
        inputs = torch.randn(n, 4, 2, generator=generator, dtype=dtype)
        return inputs, torch.nn.functional.pad(inputs, (0, 0, 1, 0))[:, :4]


def test_an_own_task_with_a_target_after_every_step():
    options = {"hidden": 8, "dtype": torch.float64, "seeds": (0, 1), "strengths": (1e-4,)}
    result = hl.train(Echo(), hl.recipes.paper(), steps=300, lr=1e-2, **options)
    assert (result.metrics["test_error"] < 0.1).all()
    maps = hl.hop_maps(result.pathways, horizon=4).values
    assert (maps[:, 1].diagonal(dim1=1, dim2=2) > 0.7).all()  # lag 1
    fast, plain = (hl.train(Echo(), MIXED, steps=20, eager=eager, **options) for eager in (False, True))
    assert_near(fast.losses, plain.losses, 1e-9)


# divergence


class Poisoned(hl.Penalty):
    """NaN from the moment that its schedule lets it count; or, harmless, nothing."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, net):
        return net.w_rec.sum(dim=(-2, -1)) * self.value


def poisoned(value):
    term = Term(lambda length: Poisoned(value), 1.0, hl.schedules.window(0.25, 1.0))
    return hl.Recipe("poisoned", (term,))


def test_a_network_that_diverges_is_recorded_and_leaves_the_others_alone():
    recipes = (hl.recipes.l1(), poisoned(float("nan")), hl.recipes.paper())
    healthy = (hl.recipes.l1(), poisoned(0.0), hl.recipes.paper())
    broken, whole = (train(r, steps=60, seeds=(0, 1)) for r in (recipes, healthy))
    # 60 steps: from step 15 on the gradient is NaN, so that the first loss that is not finite is step 16's
    assert broken.diverged_at.tolist() == [-1, -1, 16, 16, -1, -1]
    assert broken.metrics["diverged_at"].tolist() == [-1, -1, 16, 16, -1, -1]
    assert whole.diverged_at.tolist() == [-1] * 6
    others = [0, 1, 4, 5]
    for a, b in zip(tensors(broken), tensors(whole), strict=True):
        assert torch.equal(a[others], b[others])  # to the bit
        assert a.isfinite().all()
    assert torch.equal(broken.losses[:, others], whole.losses[:, others])
    assert broken.losses[16:, 2:4].isnan().all()
    assert broken.metrics["test_error"].isna().tolist() == [False, False, True, True, False, False]
    assert broken.metrics["accuracy"].isna().tolist() == [False, False, True, True, False, False]
    for column in ("test_error", "accuracy"):
        assert (broken.metrics[column][others] == whole.metrics[column][others]).all()


def test_a_relu_network_that_blows_up_is_recorded():
    result = hl.train(
        TASK,
        hl.recipes.none(),
        seeds=range(3),
        cell="relu",
        lr=1e30,
        hidden=6,
        steps=40,
        batch=8,
        decay=0.0,
    )
    assert (result.diverged_at > 0).all()
    for tensor in tensors(result):
        assert tensor.isfinite().all()
    for n, step in enumerate(result.diverged_at.tolist()):
        assert result.losses[step:, n].isnan().all()
    assert result.metrics["test_error"].isna().all()


def test_losses_before_a_divergence_are_kept():
    broken, whole = (train(poisoned(value), steps=60) for value in (float("nan"), 0.0))
    assert broken.diverged_at.tolist() == [16]
    assert torch.equal(broken.losses[:16], whole.losses[:16])
    assert broken.losses[16:].isnan().all()


# pruning


@pytest.mark.parametrize("by", ["magnitude", "pathway"])
@pytest.mark.parametrize("steps", [100, 230])
def test_gradual_pruning_reaches_its_amount_and_zeros_stay_zero(by, steps):
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.75, start=0.3, stop=0.6, by=by))
    full = hl.Recipe("full")
    result = train((recipe, full), steps=steps, seeds=(0, 1))
    zeros = (result.pathways.w_rec == 0).sum(dim=(1, 2)).tolist()
    assert zeros == [27, 27, 0, 0]  # 75 % of 6 x 6
    assert (result.pathways.w_in != 0).all()
    assert (result.pathways.w_out != 0).all()
    alone = train(full, steps=steps, seeds=(0, 1))
    assert_near(result.ensemble.weight[2:], alone.ensemble.weight, 1e-9)  # the others are not pruned


@pytest.mark.parametrize(("start", "stop"), [(0.3, 0.6), (0.55, 0.67), (0.5, 1.0)])
@pytest.mark.parametrize("steps", [10, 40])
def test_gradual_pruning_reaches_its_amount_in_few_steps(steps, start, stop):
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.75, start=start, stop=stop))
    assert int((train(recipe, steps=steps).pathways.w_rec == 0).sum()) == 27


def test_a_network_that_has_not_learnt_keeps_its_weights():
    patient = hl.Recipe("patient", pruning=hl.GradualPruning(0.75, start=0.3, stop=0.6, tolerance=1e-9))
    result = train(patient, steps=100)
    assert not (result.pathways.w_rec == 0).any()


def test_released_weights_come_back():
    kept = hl.Recipe("kept", pruning=hl.GradualPruning(0.75, start=0.3, stop=0.6))
    released = hl.Recipe("released", pruning=hl.GradualPruning(0.75, start=0.3, stop=0.6, release=0.8))
    zeros = (train((kept, released), steps=100).pathways.w_rec == 0).sum(dim=(1, 2))
    assert zeros.tolist() == [27, 0]


def test_gradual_pruning_ends_at_the_end_of_training_at_the_latest():
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.5, start=0.5, stop=1.0))
    assert int((train(recipe, steps=100).pathways.w_rec == 0).sum()) == 18


# what is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": 0}, hl.errors.ParameterError, "hidden"),
        ({"steps": 0}, hl.errors.ParameterError, "steps"),
        ({"steps": 1.5}, hl.errors.ParameterError, "steps"),
        ({"batch": 0}, hl.errors.ParameterError, "batch"),
        ({"lr": 0.0}, hl.errors.ParameterError, "lr"),
        ({"lr": float("nan")}, hl.errors.ParameterError, "lr"),
        ({"decay": 1.5}, hl.errors.ParameterError, "decay"),
        ({"clip": 0.0}, hl.errors.ParameterError, "clip"),
        ({"leak": 0.0}, hl.errors.ParameterError, "leak"),
        ({"leak": 1.1}, hl.errors.ParameterError, "leak"),
        ({"cell": "tan"}, hl.errors.UnknownNameError, "did you mean 'tanh'"),
        ({"seeds": ()}, hl.errors.ParameterError, "nothing to train"),
        ({"seeds": (-1,)}, hl.errors.ParameterError, "seed"),
        ({"strengths": (-1e-3,)}, hl.errors.ParameterError, "strength"),
        ({"strengths": (float("inf"),)}, hl.errors.ParameterError, "strength"),
        ({"strengths": ()}, hl.errors.ParameterError, "nothing to train"),
    ],
    ids=str,
)
def test_settings_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        train(hl.recipes.l1(), **options)


def test_a_task_is_a_task():
    with pytest.raises(hl.errors.UnsupportedModelError, match="the name of one, got int"):
        hl.train(3, hl.recipes.none(), **QUICK)
    with pytest.raises(hl.errors.ParameterError, match="nothing to train"):
        train(())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_a_graphics_card():
    result = train(MIXED, device="cuda", seeds=(0, 1))
    assert result.ensemble.weight.is_cuda
    assert np.isfinite(result.metrics["test_error"]).all()
    # weights are drawn on the CPU: the start does not depend on the device, only the data stream does
    starts = [train(MIXED, steps=1, lr=1e-12, device=device).pathways for device in ("cuda", "cpu")]
    assert_near(starts[0].w_rec.cpu(), starts[1].w_rec, 1e-9)


# savings


@pytest.mark.parametrize("options", [{"every": 2}, {"sample": 1}], ids=str)
def test_a_saving_recipe_depends_on_seed_and_settings_only(options):
    saving = hl.recipes.Recipe("saving", (Term(hl.recipes.PathwaySpec("hops", **options)),))
    exact = hl.recipes.Recipe("exact", (Term(hl.recipes.PathwaySpec("hops")),))
    alone = train(saving, seeds=(3,), strengths=(1e-2,))
    beside = train((exact, saving), seeds=(1, 3), strengths=(1e-2,))
    assert_near(alone.ensemble.weight[0], beside.ensemble.weight[3], 1e-9)
    assert not torch.allclose(beside.ensemble.weight[1], beside.ensemble.weight[3])


def test_a_specification_hands_its_options_on_and_draws_anew_each_time():
    spec = hl.recipes.PathwaySpec("sum", 0.8, every=3, sample=2)
    first, second = spec(7), spec(7)
    shown = "horizon=7, damping=0.8, across='sum', norm='l1', every=3, sample=2"
    assert first.extra_repr() == second.extra_repr() == shown
    assert first.generator is not second.generator
    assert torch.equal(first.generator.get_state(), second.generator.get_state())
    assert hl.recipes.PathwaySpec()(7).generator is None


def test_the_error_that_pruning_looks_at_is_the_mean_of_the_last_50_losses():
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    recipe = hl.Recipe("thin", pruning=hl.GradualPruning(0.5, start=0.2, stop=0.9))
    run = Trainer(task, [Network(recipe, 0.0, 0)], Settings(hidden=4, steps=100, batch=4))
    for step in range(60):
        run.step(step, *run.data.batch(step))
    torch.testing.assert_close(run.smoothed, run.losses[10:60].mean(dim=0))


@pytest.mark.parametrize("given", [{"hidden": 2_000_000}, {"steps": 10**13}, {"batch": 10**12}])
def test_what_cannot_fit_is_refused_before_it_begins(given):
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    with pytest.raises(hl.errors.ParameterError, match=r"GiB of memory, and there are .* GiB; take fewer"):
        hl.train(task, hl.recipes.l1(), **given)


def test_a_task_too_long_for_memory_is_refused():
    with pytest.raises(
        hl.errors.ParameterError, match=r"this task would take at least .* take a smaller length"
    ):
        hl.tasks.make("averaging", length=10**9)


def test_progress_is_a_bar_or_a_function(capsys):
    few = {"hidden": 3, "steps": 3, "batch": 2}
    hl.train("averaging", "none", progress=True, **few)
    assert capsys.readouterr().out == ""  # results are printed there, bars are not
    with pytest.raises(hl.errors.ParameterError, match="progress must be True, False or a function"):
        hl.train("averaging", "none", progress="bar", **few)
