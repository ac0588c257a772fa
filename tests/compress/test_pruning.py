"""hl.prune: exact counts, patterns, costs against brute force, masks in and out, and refusals."""

import copy
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT
from size import few
from torch import nn
from torch.nn.utils import prune as torch_prune

import hoplens as hl
from hoplens.compress.reconstruction import MIX, cost_matrices, refit, removal_costs
from hoplens.compress.sensitivity import PROBES, sensitivities
from hoplens.graph.scores import top_mask
from hoplens.models.cells import LeakyRNN
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.seeds import generator

KINDS = ["rnn", "gru", "lstm", "leaky", "stacked", "projected"]
CRITERIA = ["pathway", "magnitude", "taylor", "random"]
ALL = slice(None)


def model_of(kind, hidden=6, *, outputs=2, every_step=False, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core = {
            "rnn": lambda: nn.RNN(3, hidden, batch_first=True),
            "gru": lambda: nn.GRU(3, hidden, batch_first=True),
            "lstm": lambda: nn.LSTM(3, hidden, batch_first=True),
            "leaky": lambda: LeakyRNN(3, hidden, 0.5),
            "stacked": lambda: nn.GRU(3, hidden, num_layers=2, batch_first=True, bidirectional=True),
            "projected": lambda: nn.LSTM(3, hidden, batch_first=True, proj_size=hidden - 2),
        }[kind]()
        shown = getattr(core, "proj_size", 0) or hidden
        readout = nn.Linear(shown * (2 if core.bidirectional else 1), outputs)
    return RecurrentModel(core, readout, ModelInfo(every_step=every_step)).double()


def data(samples=12, steps=5, outputs=2, seed=1):
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, steps, 3, generator=source, dtype=torch.float64)
    return inputs, torch.randn(samples, outputs, generator=source, dtype=torch.float64)


def slopes_by_autograd(outputs, parameter):
    flat = outputs.flatten(1)
    grads = [torch.autograd.grad(flat[b, o], parameter, retain_graph=True)[0]
             for o in range(flat.shape[1]) for b in range(len(flat))]  # fmt: skip
    return torch.stack(grads, dim=1)  # (R, O * B, C)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sensitivities_are_the_derivatives_of_every_output_by_every_weight(kind, every_step):
    model, (inputs, _) = model_of(kind, 4, every_step=every_step), data(3, 4)
    found = sensitivities(model, inputs)
    parameters = dict(model.named_parameters())
    assert set(found) == {n for n in parameters if "weight" in n and "weight_hr" not in n}
    for name, matrix in found.items():
        wanted = slopes_by_autograd(model(inputs), parameters[name])
        torch.testing.assert_close(matrix.jacobian(ALL), wanted, rtol=1e-9, atol=1e-12)


def test_many_outputs_are_mixed_so_that_squared_derivatives_keep_their_mean():
    model = model_of("rnn", 5, outputs=PROBES + 8)
    inputs, _ = data(64, 4)
    matrix = sensitivities(model, inputs)["core.weight_hh_l0"]
    assert len(matrix.adjoint) == PROBES
    exact = slopes_by_autograd(model(inputs), model.core.weight_hh_l0)
    torch.testing.assert_close(matrix.jacobian(ALL).square().sum(1), exact.square().sum(1), rtol=0.1, atol=0)


def test_a_window_is_applied_before_the_network_is_scored():
    inputs, _ = data(4, 9)
    short = model_of("gru", 4)
    windowed = RecurrentModel(short.core, short.readout, ModelInfo(window=3))
    found, wanted = sensitivities(windowed, inputs), sensitivities(short, inputs[:, -3:])
    for name, matrix in found.items():
        torch.testing.assert_close(matrix.jacobian(ALL), wanted[name].jacobian(ALL))


def test_pathway_costs_are_the_lesions_of_hop_maps_in_a_linear_network():
    core = LeakyRNN(2, 4, 1.0, nonlinearity="linear").double()
    with torch.no_grad():
        core.bias_ih_l0.zero_()
        core.bias_hh_l0.zero_()
    model = RecurrentModel(core, nn.Linear(4, 2).double())
    length, tiny = 5, 1e-5
    impulses = torch.eye(length * 2, dtype=torch.float64).view(-1, length, 2)
    matrix = sensitivities(model, impulses)["core.weight_hh_l0"]
    squared = matrix.jacobian(ALL).square().sum(1)
    net = hl.read(core, readout=model.readout).detach()
    whole = hl.hop_maps(net, length).values
    for i in range(4):
        for j in range(4):
            bent = net.w_rec.clone()
            bent[i, j] *= 1 - tiny
            lost = (whole - hl.hop_maps(hl.Pathways(net.w_in, bent, net.w_out), length).values).square().sum()
            wanted = tiny**2 * net.w_rec[i, j] ** 2 * squared[i, j]
            assert float(lost) == pytest.approx(float(wanted), rel=1e-3)


def test_cost_matrices_are_gauss_newton_blocks_plus_the_row_sums_own_error():
    model, (inputs, _) = model_of("rnn", 4), data(6, 4)
    matrix = sensitivities(model, inputs)["core.weight_hh_l0"]
    slopes = slopes_by_autograd(model(inputs), model.core.weight_hh_l0)
    states = torch.cat([torch.zeros(6, 1, 4), model.core(inputs)[0][:, :-1]], dim=1).detach()
    wanted = torch.zeros(4, 4, 4, dtype=torch.float64)
    for i in range(4):
        for s in range(slopes.shape[1]):
            wanted[i] += torch.outer(slopes[i, s], slopes[i, s]) / 6
        reach = sum(float(matrix.adjoint[o, b, t, i]) ** 2
                    for o in range(2) for b in range(6) for t in range(4)) / 24  # fmt: skip
        for b in range(6):
            for t in range(4):
                wanted[i] += MIX * reach * torch.outer(states[b, t], states[b, t]) / 6
        wanted[i] += 1e-3 * wanted[i].trace() / 4 * torch.eye(4)
    torch.testing.assert_close(cost_matrices(matrix, ALL), wanted, rtol=1e-8, atol=1e-14)


def spd(rows, columns, seed=0):
    source = torch.Generator().manual_seed(seed)
    roots = torch.randn(rows, columns, columns + 2, generator=source, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=source, dtype=torch.float64)
    return weight, roots @ roots.mT


def least_cost(weight, costs, kept):
    """Brute force: minimise (w' - w)^T C (w' - w) over the kept weights by a least-squares solver."""
    root = torch.linalg.cholesky(costs).mT
    places = kept.nonzero()[:, 0]
    fitted = torch.zeros_like(weight)
    if len(places):
        fitted[places] = torch.linalg.lstsq(root[:, places], (root @ weight)[:, None]).solution[:, 0]
    gap = fitted - weight
    return fitted, float(gap @ costs @ gap)


@given(st.integers(1, 6), st.integers(0, 1000), st.data())
def test_refit_is_the_least_squares_solution(columns, seed, draw):
    weight, costs = spd(2, columns, seed)
    kept = torch.tensor(draw.draw(st.lists(st.booleans(), min_size=2 * columns, max_size=2 * columns)))
    kept = kept.view(2, columns)
    found = refit(weight, costs, kept)
    for n in range(2):
        torch.testing.assert_close(
            found[n], least_cost(weight[n], costs[n], kept[n])[0], rtol=1e-7, atol=1e-9
        )


@given(st.integers(2, 6), st.integers(0, 1000))
def test_removal_goes_cheapest_first_with_the_rest_fitted_anew(columns, seed):
    weight, costs = spd(1, columns, seed)
    kept = torch.ones(1, columns, dtype=torch.bool)
    kept[0, 0] = False
    found = removal_costs(weight, costs, kept)[0]
    here = kept[0].clone()
    start = least_cost(weight[0] * here, costs[0], here)[0]
    worst, row, order = 0.0, start, []
    for _ in range(columns - 1):
        prices = []
        for j in here.nonzero()[:, 0].tolist():
            left = here.clone()
            left[j] = False
            # the cost of going from the row as it is now to the best one without j
            prices.append((least_cost_from(row, costs[0], left), j))
        price, j = min(prices)
        here[j] = False
        row = fit_from(row, costs[0], here)
        worst = max(worst, price)
        order.append(j)
        assert float(found[j]) == pytest.approx(worst, rel=1e-6, abs=1e-12)
    assert float(found[0]) == 0.0
    assert sorted(order) == list(range(1, columns))


def fit_from(row, costs, kept):
    """Brute force: the best row inside ``kept``, seen from a row that has zeros already."""
    return least_cost(row, costs, kept)[0]


def least_cost_from(row, costs, kept):
    return least_cost(row, costs, kept)[1]


def test_long_rows_lose_several_weights_at_once_and_each_counts_once():
    weight, costs = spd(2, 150)
    found = removal_costs(weight, costs, torch.ones(2, 150, dtype=torch.bool))
    assert bool(torch.isfinite(found).all())
    one = removal_costs(weight[:, :40], costs[:, :40, :40], torch.ones(2, 40, dtype=torch.bool))
    assert bool(torch.isfinite(one).all())
    assert len(found.unique()) > 100


@settings(max_examples=few(30))
@given(st.sampled_from(KINDS), st.sampled_from(CRITERIA), st.floats(0.05, 0.99), st.integers(0, 99))
def test_exactly_the_share_asked_for_goes_and_the_model_given_stays(kind, by, amount, seed):
    model, (inputs, targets) = model_of(kind, 4, seed=seed), data(6, 3, seed=seed)
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    small = hl.prune(
        model, amount, by=by, blocks=("in", "rec", "out"), inputs=inputs, targets=targets, seed=seed
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    weights = small.model.state_dict()
    assert set(small.masks) == {n for n in weights if "weight" in n and "weight_hr" not in n}
    for name, mask in small.masks.items():
        assert int((~mask).sum()) == round(amount * mask.numel())
        assert torch.equal(weights[name] != 0, mask)
    report = small.report.set_index("tensor")
    assert bool(report.loc[list(small.masks), "pruned"].all())
    assert not report.drop(list(small.masks))["pruned"].any()
    for name, value in weights.items():
        assert report.loc[name, "weights"] == int((value != 0).sum())
    assert small.model(inputs).shape == (6, 2)


@pytest.mark.parametrize("by", ["pathway", "magnitude", "taylor"])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "leaky"])
def test_permuted_units_are_pruned_alike(kind, by):
    model, (inputs, targets) = model_of(kind), data()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in other.core.named_parameters():
            rows = value.unflatten(0, (-1, 6))[:, order].flatten(0, 1)
            value.copy_(rows[:, order] if "weight_hh" in name else rows)
        other.readout.weight.copy_(other.readout.weight[:, order])
    first, second = (hl.prune(m, 0.5, by=by, inputs=inputs, targets=targets) for m in (model, other))
    mask = first.masks["core.weight_hh_l0"].unflatten(0, (-1, 6))[:, order].flatten(0, 1)[:, order]
    assert torch.equal(second.masks["core.weight_hh_l0"], mask)
    torch.testing.assert_close(second.model(inputs), first.model(inputs), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("by", CRITERIA)
def test_n_of_every_m_weights_of_a_row_are_left(by):
    model, (inputs, targets) = model_of("gru", 8), data()
    for structure, n, m in (("2:4", 2, 4), ("1:2", 1, 2), ("3:8", 3, 8)):
        small = hl.prune(model, by=by, structure=structure, inputs=inputs, targets=targets)
        counts = (small.core.weight_hh_l0 != 0).unflatten(1, (-1, m)).sum(-1)
        assert bool((counts == n).all())


def test_magnitude_keeps_the_largest_of_every_group():
    model = model_of("rnn", 4)
    small = hl.prune(model, 0.5, by="magnitude", structure="2:4")
    for old, mask in zip(model.core.weight_hh_l0, small.masks["core.weight_hh_l0"], strict=True):
        assert set(mask.nonzero()[:, 0].tolist()) == set(old.abs().topk(2).indices.tolist())


@pytest.mark.parametrize("by", CRITERIA)
@pytest.mark.parametrize(("hidden", "tiles"), [(8, 4), (6, 4)])
def test_tiles_go_as_a_whole(by, hidden, tiles):
    model, (inputs, targets) = model_of("rnn", hidden), data()
    small = hl.prune(model, 0.5, by=by, structure="block", inputs=inputs, targets=targets)
    mask = small.masks["core.weight_hh_l0"]
    parts = [tile for rows in mask.split(4) for tile in rows.split(4, dim=1)]
    assert all(bool(tile.all()) or not bool(tile.any()) for tile in parts)
    assert sum(not bool(tile.any()) for tile in parts) == round(0.5 * tiles)


def test_taylor_scores_are_squared_sample_gradients_times_squared_weights():
    model, (inputs, targets) = model_of("gru"), data()
    small = hl.prune(model, 0.5, by="taylor", inputs=inputs, targets=targets)
    weight = model.core.weight_hh_l0
    total = torch.zeros_like(weight)
    for x, y in zip(inputs, targets, strict=True):
        (slope,) = torch.autograd.grad((model(x[None]) - y).square().mean(), weight)
        total += slope.square()
    scores = (weight.square() * total).detach()
    assert torch.equal(small.masks["core.weight_hh_l0"], top_mask(scores, 0.5))
    torch.testing.assert_close(small.core.weight_hh_l0, weight * small.masks["core.weight_hh_l0"])


def test_classes_are_taken():
    model, (inputs, _) = model_of("rnn"), data()
    small = hl.prune(model, 0.5, by="taylor", inputs=inputs, targets=torch.arange(12) % 2)
    assert float(small.masks["core.weight_hh_l0"].double().mean()) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_pathway_pruning_keeps_the_outputs_best(kind):
    model, (inputs, targets) = model_of(kind, 8), data(40)
    test, _ = data(40, seed=2)
    wanted = model(test)

    def error(**options):
        small = hl.prune(model, 0.5, inputs=inputs, targets=targets, **options)
        return float((small.model(test) - wanted).square().mean().detach())

    found = error()
    assert found < 0.7 * min(error(by=by) for by in ("magnitude", "taylor", "random"))
    assert found <= 1.05 * error(by="magnitude", compensate=True)
    assert found < error(compensate=False)


def test_without_data_white_noise_of_the_seed_is_used():
    model = model_of("rnn")
    first, again, other = (hl.prune(model, 0.7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.core.weight_hh_l0, again.core.weight_hh_l0)
    assert not torch.equal(first.core.weight_hh_l0, other.core.weight_hh_l0)
    noise = torch.randn(128, 20, 3, generator=generator("white noise", 0), dtype=torch.float64)
    same = hl.prune(model, 0.7, inputs=noise)
    assert torch.equal(first.core.weight_hh_l0, same.core.weight_hh_l0)


def test_masks_of_torch_come_in_and_go_out():
    model, (inputs, _) = model_of("gru"), data()
    torch_prune.l1_unstructured(model.core, "weight_hh_l0", 0.3)
    gone = model.core.weight_hh_l0_mask == 0
    outputs = model(inputs)
    small = hl.prune(model.core, 0.6, readout=model.readout, inputs=inputs)
    mask = small.masks["core.weight_hh_l0"]
    assert not bool((mask & gone).any())
    assert int((~mask).sum()) == round(0.6 * mask.numel())
    assert torch_prune.is_pruned(model.core)
    assert torch.equal(model(inputs), outputs)
    out = small.with_masks()
    assert torch.equal(out.core.weight_hh_l0_mask.bool(), mask)
    torch.testing.assert_close(out(inputs), small.model(inputs))
    optimiser = torch.optim.SGD(out.parameters(), lr=0.1)
    out(inputs).square().mean().backward()
    optimiser.step()
    again = hl.prune(out, 0.8, inputs=inputs)
    assert not bool((again.masks["core.weight_hh_l0"] & ~mask).any())
    assert not torch.equal(out(inputs), small.model(inputs))


def test_it_unpacks_into_core_and_readout():
    model, (inputs, _) = model_of("lstm"), data()
    core, readout = hl.prune(model.core, 0.5, readout=model.readout, inputs=inputs)
    assert isinstance(core, nn.LSTM)
    assert isinstance(readout, nn.Linear)
    assert core is not model.core


@pytest.mark.parametrize("structure", ["weight", "block", "unit"])
def test_rounds_end_at_the_share_asked_for(structure):
    model, (inputs, _) = model_of("rnn", 8), data()
    small = hl.prune(model, 0.75, structure=structure, inputs=inputs, rounds=3)
    if structure == "unit":
        assert small.core.hidden_size == 2
        assert len(small.units["l0"]) == 2
    else:
        assert int((small.core.weight_hh_l0 == 0).sum()) == 48


@pytest.mark.parametrize("structure", ["weight", "unit", "1:2"])
@pytest.mark.parametrize("kind", ["rnn", "stacked"])
def test_fine_tuning_holds_masks_and_wins_back(kind, structure):
    model, (inputs, _) = model_of(kind), data(60)
    wanted = model(inputs).detach()
    amount = None if ":" in structure else 0.5
    options = {"by": "magnitude", "structure": structure, "inputs": inputs}
    state = torch.random.get_rng_state()
    plain, tuned = (hl.prune(model, amount, **options, steps=steps, lr=1e-2) for steps in (0, 60))
    assert torch.equal(torch.random.get_rng_state(), state)
    before, after = ((one.model(inputs) - wanted).square().mean().detach() for one in (plain, tuned))
    assert float(after) < 0.5 * float(before)
    assert not torch_prune.is_pruned(tuned.model)
    for name, mask in tuned.masks.items():
        assert not bool(tuned.model.state_dict()[name][~mask].any())


def test_an_own_fine_tuning_is_called_every_round_with_masks_held():
    model, (inputs, targets) = model_of("gru"), data()
    seen = []

    def tune(own):
        seen.append(torch_prune.is_pruned(own.core))
        optimiser = torch.optim.SGD(own.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            (own(inputs) - targets).square().mean().backward()
            optimiser.step()

    small = hl.prune(model, 0.5, inputs=inputs, rounds=2, fine_tune=tune)
    assert seen == [True, True]
    assert int((small.core.weight_hh_l0 == 0).sum()) == 54
    fixed = hl.prune(model, 0.5, inputs=inputs, rounds=2)
    assert not torch.equal(fixed.core.weight_ih_l0, small.core.weight_ih_l0)


def test_an_ensemble_of_one_is_a_model_and_of_several_is_refused():
    task = hl.tasks.make("averaging", length=5)
    ensemble = hl.train(task, hl.recipes.none(), seeds=[0, 1], hidden=8, steps=3).ensemble
    inputs, _ = task.sample(16, generator=0)
    one = ensemble.select(slice(1, 2))
    small, again = (hl.prune(model, 0.5, inputs=inputs) for model in (one, ensemble.model(1)))
    assert torch.equal(small.core.weight_hh_l0, again.core.weight_hh_l0)
    with pytest.raises(hl.errors.ParameterError, match="takes one network"):
        hl.prune(ensemble, 0.5)


def test_nothing_to_prune_is_said():
    model = model_of("rnn")
    sparse = hl.prune(model, 0.9, by="magnitude")
    with pytest.warns(UserWarning, match=r"nothing was pruned.* 88\.9% zeros"):
        again = hl.prune(sparse.model, 0.5, by="magnitude")
    assert torch.equal(again.core.weight_hh_l0, sparse.core.weight_hh_l0)
    with pytest.warns(UserWarning, match="nothing was pruned"):
        hl.prune(model, 0.0)


def test_a_network_that_reaches_no_output_is_pruned_all_the_same():
    model = model_of("rnn")
    with torch.no_grad():
        model.readout.weight.zero_()
    small = hl.prune(model, 0.5)
    assert bool(torch.isfinite(small.core.weight_hh_l0).all())
    assert int((small.core.weight_hh_l0 == 0).sum()) == 18
    assert hl.prune(model, 0.5, structure="unit").core.hidden_size == 3


REFUSED = [
    ({"amount": 1.0}, hl.errors.ParameterError, "amount must be .* below 1"),
    ({"amount": -0.1}, hl.errors.ParameterError, "amount must be"),
    ({"amount": None}, hl.errors.ParameterError, "amount is missing"),
    ({"by": "pathways"}, hl.errors.UnknownNameError, "did you mean 'pathway'"),
    ({"structure": "units"}, hl.errors.UnknownNameError, "did you mean 'unit'"),
    ({"structure": "n:m"}, hl.errors.ParameterError, "needs numbers"),
    ({"structure": "4:4", "amount": None}, hl.errors.ParameterError, "0 < n < m"),
    ({"structure": "1:4"}, hl.errors.ParameterError, "removes the share 0.75"),
    ({"structure": "2:4", "amount": None}, hl.errors.ShapeError, "multiple of 4"),
    ({"blocks": ("recurrent",)}, hl.errors.UnknownNameError, "block"),
    ({"blocks": ()}, hl.errors.ParameterError, "at least one of the blocks"),
    ({"structure": "unit", "blocks": ("in",)}, hl.errors.ParameterError, "units take no blocks"),
    ({"by": "taylor"}, hl.errors.ParameterError, "pass inputs="),
    ({"by": "taylor", "inputs": data()[0]}, hl.errors.ParameterError, "pass targets="),
    ({"steps": 5}, hl.errors.ParameterError, "pass inputs="),
    ({"steps": 5, "fine_tune": print}, hl.errors.ParameterError, "give one of them"),
    ({"inputs": torch.zeros(2, 3, 4)}, hl.errors.ShapeError, r"I = 3, got \(2, 3, 4\)"),
    ({"inputs": torch.full((2, 3, 3), torch.nan)}, hl.errors.NonFiniteError, "drop them"),
    ({"inputs": data()[0], "targets": torch.zeros(3, 2)}, hl.errors.ShapeError, "those of 12 sequences, got"),
    ({"rounds": 0}, hl.errors.ParameterError, "rounds"),
    ({"samples": 0}, hl.errors.ParameterError, "samples"),
    ({"block_size": 0}, hl.errors.ParameterError, "block_size"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda x: str(x)[:30])
def test_bad_requests_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        hl.prune(model_of("rnn"), **{"amount": 0.5, **options})


def test_arrays_are_taken_as_data():
    model, (inputs, targets) = model_of("rnn"), data()
    options = {"by": "taylor", "inputs": inputs.numpy(), "targets": targets.numpy()}
    wanted = hl.prune(model, 0.5, by="taylor", inputs=inputs, targets=targets)
    assert torch.equal(hl.prune(model, 0.5, **options).core.weight_hh_l0, wanted.core.weight_hh_l0)


def test_bad_models_are_refused():
    model = model_of("rnn")
    with pytest.raises(hl.errors.UnsupportedModelError, match="readout="):
        hl.prune(model.core, 0.5)
    with pytest.raises(hl.errors.UnsupportedModelError, match="batch_first=True"):
        hl.prune(nn.RNN(3, 6), 0.5, readout=model.readout)
    with torch.no_grad():
        model.core.weight_hh_l0[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match=r"core\.weight_hh_l0"):
        hl.prune(model, 0.5)


def test_the_benchmark_prunes_as_prune_does(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark, networks = importlib.import_module("pruning"), importlib.import_module("pruning_networks")
    task = hl.tasks.make("averaging", length=benchmark.LENGTH)
    ensemble = hl.train(task, hl.recipes.none(), seeds=[0], hidden=8, steps=20).ensemble
    inputs, targets = networks.calibration(task)
    (model,) = ensemble.models()
    found = benchmark.choices(model, inputs, targets, 0)
    few = inputs[: networks.CALIBRATION]
    options = {
        benchmark.OURS: {"inputs": few},
        benchmark.MAGNITUDE: {"by": "magnitude"},
        benchmark.TAYLOR: {"by": "taylor", "inputs": inputs, "targets": targets, "samples": len(inputs)},
        benchmark.RANDOM: {"by": "random"},
        "pathway, no data": {"horizon": benchmark.LENGTH},
        "pathway, not refitted": {"inputs": few, "compensate": False},
        "magnitude, refitted": {"by": "magnitude", "compensate": True, "inputs": few},
    }
    assert set(options) | {benchmark.FIRST} == set(found)
    for method, choice in found.items():
        weight, mask = choice(0.7)
        assert int((~mask).sum()) == round(0.7 * 64)
        if method in options:
            small = hl.prune(model, 0.7, **options[method])
            assert torch.equal(small.masks["core.weight_hh_l0"], mask)
            torch.testing.assert_close(small.core.weight_hh_l0.double(), weight, rtol=1e-5, atol=1e-6)


def test_fine_tuning_of_the_benchmark_holds_masks_and_starts_from_the_pruned_networks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    networks = importlib.import_module("pruning_networks")
    task = hl.tasks.make("averaging", length=5)
    ensemble = hl.train(task, hl.recipes.none(), seeds=[0, 1], hidden=8, steps=200).ensemble
    pruned = [hl.prune(model, 0.6, by="magnitude") for model in ensemble.models()]
    small = ensemble.with_models([one.model for one in pruned])
    masks = torch.stack([one.masks["core.weight_hh_l0"] for one in pruned])
    later = networks.tuned(task, small, masks, range(2), 30)
    assert bool((later.recurrent().mT[~masks] == 0).all())
    before, after = (networks.performance(task, nets) for nets in (small, later))
    assert bool((after > before).all())
    short = networks.tuned(task, small, masks, range(2), 1)
    assert float((short.weight - small.weight).abs().max()) < 0.01


def test_classes_and_tiles_that_do_not_fit_are_named():
    rnn, linear, x = torch.nn.RNN(3, 6, batch_first=True), torch.nn.Linear(6, 2), torch.randn(8, 5, 3)
    for classes in (torch.full((8,), 2), torch.full((8,), -1)):
        with pytest.raises(hl.errors.ParameterError, match="classes must be 0 to 1"):
            hl.prune(rnn, 0.5, readout=linear, by="taylor", inputs=x, targets=classes)
    with pytest.raises(hl.errors.ParameterError, match="block_size must be at most 6"):
        hl.prune(rnn, 0.5, readout=linear, structure="block", block_size=99)
