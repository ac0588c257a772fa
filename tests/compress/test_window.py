"""Windows: sound bounds, exact cases, refusals, and models that run only their last steps."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few
from torch import nn

import hoplens as hl
from hoplens.compress.intervals import Box, box_step, part_step
from hoplens.compress.proofs import (
    best_scales,
    bound_after_any_past,
    bound_everywhere,
    reachable,
    spectral_bound,
)
from hoplens.compress.window import candidates
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import last_steps

F64 = torch.float64
KINDS = ("tanh", "relu", "leaky", "gru", "lstm", "projected")


def core_of(kind, layers=1, inputs=2, hidden=3):
    sizes = {"input_size": inputs, "hidden_size": hidden, "num_layers": layers, "batch_first": True}
    if kind == "leaky":
        return hl.LeakyRNN(inputs, hidden, 0.4)
    if kind == "gru":
        return nn.GRU(**sizes)
    if kind == "lstm":
        return nn.LSTM(**sizes)
    if kind == "projected":
        return nn.LSTM(**sizes, proj_size=2)
    return nn.RNN(**sizes, nonlinearity=kind)


def model_of(kind, layers=1, seed=0, gain=1.0, **sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        core = core_of(kind, layers, **sizes)
        readout = nn.Linear(2 if kind == "projected" else core.hidden_size, 2)
    model = hl.RecurrentModel(core, readout).to(F64)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(gain)
    return model


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def delay_line(length=4):
    """Return a network that shows the input of ``length - 1`` steps ago and forgets what is older."""
    core = nn.RNN(1, length, batch_first=True, nonlinearity="relu", bias=False)
    readout = nn.Linear(length, 1, bias=False)
    with torch.no_grad():
        core.weight_hh_l0.copy_(torch.diag(torch.ones(length - 1), -1))
        core.weight_ih_l0.copy_(torch.eye(length)[:, :1])
        readout.weight.copy_(torch.eye(length)[-1:])
    return hl.RecurrentModel(core, readout).double()


models = st.builds(
    model_of,
    st.sampled_from(KINDS),
    st.sampled_from([1, 1, 2]),
    st.integers(0, 10**6),
    st.sampled_from([0.3, 0.8, 1.5]),
)


def core_stack(model):
    return to_stack(model.core, model.readout)


# bounds


@given(models, st.integers(0, 10**6))
def test_boxes_hold_every_state_and_distances_bound_every_parting(model, seed):
    cell = core_stack(model).cells[0]
    centre, width = draw(seed, cell.n_state), draw(seed + 1, cell.n_state).abs()
    state = Box(centre - width, centre + width)
    x_low = draw(seed + 2, 2)
    x = Box(x_low, x_low + draw(seed + 3, 2).abs())
    source = torch.Generator().manual_seed(seed)

    def point(box):
        share = torch.rand(200, len(box.low), generator=source, dtype=F64).round(decimals=1)
        return box.low + share * (box.high - box.low)

    first, second, xs, other_xs = point(state), point(state), point(x), point(x)
    with torch.no_grad():
        new, other = cell.step(first, xs), cell.step(second, other_xs)
        box = box_step(cell, state, x)
        run = 1e-13  # what running in floating point adds; the boxes are of exact arithmetic
        assert (new >= box.low - run).all()
        assert (new <= box.high + run).all()
        parted = part_step(cell, state, x, (first - second).abs(), (xs - other_xs).abs())
        assert ((new - other).abs() <= parted + run).all()
        same = part_step(cell, state, x, (first - second).abs(), None)
        assert ((new - cell.step(second, xs)).abs() <= same + run).all()


def exactly(cell, state, x):
    """One step at 50 digits, from torch's equations; a list of mpmath numbers."""
    with mpmath.workdps(50):
        mp = mpmath.mpf
        weights = {
            name: [[mp(v) for v in row] for row in getattr(cell, name).tolist()] for name in ("w_ih", "w_hh")
        }
        biases = {name: [mp(v) for v in getattr(cell, name).tolist()] for name in ("b_ih", "b_hh")}
        h, x = [mp(v) for v in state.tolist()], [mp(v) for v in x.tolist()]

        def affine(name, values):
            rows, bias = weights[f"w_{name}"], biases[f"b_{name}"]
            return [mpmath.fdot(row, values) + b for row, b in zip(rows, bias, strict=True)]

        def logistic(v):
            return 1 / (1 + mpmath.exp(-v))

        if isinstance(cell, hl.models.GruCell):
            n = cell.hidden
            i, r = affine("ih", x), affine("hh", h)
            reset, keep = ([logistic(i[k] + r[k]) for k in range(a, a + n)] for a in (0, n))
            new = [mpmath.tanh(i[2 * n + k] + reset[k] * r[2 * n + k]) for k in range(n)]
            return [(1 - keep[k]) * new[k] + keep[k] * h[k] for k in range(n)]
        if isinstance(cell, hl.models.LstmCell):
            n, shown = cell.hidden, cell.shown
            z = [a + b for a, b in zip(affine("ih", x), affine("hh", h[:shown]), strict=True)]
            i, f, o = ([logistic(v) for v in z[a : a + n]] for a in (0, n, 3 * n))
            c = [f[k] * h[shown + k] + i[k] * mpmath.tanh(z[2 * n + k]) for k in range(n)]
            out = [o[k] * mpmath.tanh(c[k]) for k in range(n)]
            if cell.w_hr is not None:
                out = [mpmath.fdot([mp(v) for v in row], out) for row in cell.w_hr.tolist()]
            return out + c
        z = [a + b for a, b in zip(affine("ih", x), affine("hh", h), strict=True)]
        new = [mpmath.tanh(v) if cell.nonlinearity == "tanh" else max(v, mp(0)) for v in z]
        leak = [mp(v) for v in torch.as_tensor(cell.leak, dtype=F64).expand(len(new)).tolist()]
        return [(1 - a) * old + a * v for a, old, v in zip(leak, h, new, strict=True)]


@settings(max_examples=few(60), deadline=None)
@given(
    st.builds(
        model_of, st.sampled_from(KINDS), st.just(1), st.integers(0, 10**6), st.sampled_from([0.3, 4.0])
    ),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-15, 1e-3]),
    st.sampled_from([1e-9, 1.0, 1e3, 1e6]),
)
def test_bounds_hold_to_the_last_digit(model, seed, width, size):
    """Boxes of no width, or next to none: nothing but the rounding of the bounds makes them hold."""
    cell = core_stack(model).cells[0]
    state, x = size * draw(seed, cell.n_state), size * draw(seed + 1, 2)
    other = state * (1 + width)
    with torch.no_grad():
        box = Box(torch.minimum(state, other), torch.maximum(state, other))
        found = box_step(cell, box, Box(x, x))
        apart = (other - state).abs() * (1 + 2.0**-52)  # the difference is rounded itself
        parted = part_step(cell, box, Box(x, x), apart, None)
    first, second = exactly(cell, state, x), exactly(cell, other, x)
    ends = (found.low.tolist(), found.high.tolist(), parted.tolist())
    for low, high, far, a, b in zip(*ends, first, second, strict=True):
        assert low <= min(a, b)
        assert max(a, b) <= high
        assert abs(a - b) <= far
    assert float((found.high - found.low).max()) <= 1e-3 * size * 30 + 1e-9 * size  # and are not idle


@pytest.mark.parametrize("hidden", [40, 300])
def test_the_margin_of_a_bound_grows_with_the_sums_it_covers(hidden):
    """A large sum that cancels is off by more than a fixed small share of its result."""
    g = torch.Generator().manual_seed(0)
    half = 1e8 * torch.rand(hidden // 2, generator=g, dtype=F64)
    row = torch.cat([half, -half])[None, torch.randperm(hidden, generator=g)]
    x = 1 + 1e-15 * torch.rand(hidden, generator=g, dtype=F64)
    cell = hl.models.RnnCell(row, torch.zeros(1, 1, dtype=F64), nonlinearity="linear")
    start = torch.zeros(1, dtype=F64)
    with mpmath.workdps(60):
        exact = mpmath.fdot([mpmath.mpf(v) for v in row[0].tolist()], [mpmath.mpf(v) for v in x.tolist()])
    box = box_step(cell, Box(start, start), Box(x, x))
    assert float(box.low) <= exact <= float(box.high)
    width = float(box.high - box.low)
    assert abs(float(exact)) < width < 1e-5 * hidden**2


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 9]), st.sampled_from([1e-8, 1.0, 1e8]))
@settings(max_examples=few(30), deadline=None)
def test_a_spectral_norm_is_bounded_from_above(seed, size, spread):
    matrix = draw(seed, size, size) * spread ** torch.rand(
        size, generator=torch.Generator().manual_seed(seed), dtype=F64
    )
    found = spectral_bound(matrix)
    with mpmath.workdps(50):
        exact = max(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False))
        assert exact <= found
        assert found <= exact * (1 + mpmath.mpf(1e-10))
    assert spectral_bound(torch.zeros(3, 3, dtype=F64)) < 1e-100


@settings(max_examples=few(20))
@given(models, st.integers(0, 10**6))
def test_no_error_is_above_its_bounds(model, seed):
    inputs = draw(seed, 20, 9, 2)
    stack = core_stack(model)
    box = Box(inputs.amin((0, 1)), inputs.amax((0, 1)))
    with torch.no_grad():
        everywhere = bound_everywhere(stack, box, 9)
        pasts = reachable(stack, box, 9)
        # other sequences of the same range, and the worst ones: every input at an end
        ends = torch.where(draw(seed + 1, 20, 9, 2) > 0, box.low, box.high)
        for window in range(10):
            for batch in (inputs, ends):
                last = batch[:, 9 - window :]
                short = model(last) if window else model.readout.bias.expand(20, -1)
                errors = (model(batch) - short).abs()
                assert (errors.amax(0) <= everywhere[window] + 1e-12).all()
                if window:
                    proven = bound_after_any_past(stack, last, pasts)
                    assert (errors <= proven + 1e-12).all()
                    swapped = torch.cat([ends[:, : 9 - window].flip(0), last], dim=1)
                    assert ((model(swapped) - model(last)).abs() <= proven + 1e-12).all()


def test_bounds_are_tight_where_the_network_is_its_own_worst_case():
    # positive weights, relu, inputs at the top of their range: the recursion is an equality
    model = model_of("relu", seed=3)
    with torch.no_grad():
        for parameter in model.core.parameters():
            parameter.abs_().mul_(0.4)
        model.readout.weight.abs_()
        top = torch.ones(1, 6, 2, dtype=F64)
        stack, box = core_stack(model), Box(torch.zeros(2, dtype=F64), top[0, 0])
        bounds = bound_everywhere(stack, box, 6)
        for window in range(1, 6):
            error = (model(top) - model(top[:, 6 - window :])).abs()[0]
            proven = bound_after_any_past(stack, top[:, 6 - window :], reachable(stack, box, 6 - window))[0]
            torch.testing.assert_close(error, proven, rtol=1e-9, atol=1e-9)
            assert (bounds[window] >= error - 1e-12).all()
            assert (bounds[window] <= 8 * error + 1e-9).all()


@settings(max_examples=few(15))
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_unit_scales_do_not_do_worse_than_none_or_the_perron_vectors(seed, size):
    matrix = draw(seed, size, size)
    scales = best_scales(matrix)
    assert (scales > 0).all()
    norm = torch.linalg.matrix_norm(matrix * scales / scales[:, None], ord=2)
    plain = torch.linalg.matrix_norm(matrix, ord=2)
    radius = torch.linalg.eigvals(matrix.abs()).abs().max()
    assert norm <= min(float(plain), float(radius) * 1.001 + 1e-3) + 1e-9


def test_a_rotation_that_shrinks_is_proven_by_its_norm_though_its_magnitudes_grow():
    model = model_of("tanh", hidden=8, seed=1)
    with torch.no_grad():
        rotation = torch.linalg.qr(draw(0, 8, 8))[0]
        model.core.weight_hh_l0.copy_(0.5 * rotation)
        assert torch.linalg.eigvals(model.core.weight_hh_l0.abs()).abs().max() > 1
        bounds = bound_everywhere(core_stack(model), Box(-torch.ones(2).double(), torch.ones(2).double()), 30)
    assert bounds[30].max() < 1e-6


# windows


@pytest.mark.parametrize("bound", ["range", "pasts", "measured"])
def test_a_delay_line_needs_exactly_its_length(bound):
    found = hl.effective_window(delay_line(4), draw(0, 8, 12, 1), 1e-9, bound=bound)
    assert found.window == found.measured_window == found.linear_window == 4
    assert found.error <= 1e-12
    assert found.reason == ""
    assert found.bound == (math.inf if bound == "measured" else pytest.approx(0, abs=1e-9))
    assert found.steps == 12


def test_a_proven_window_is_small_enough_and_the_one_before_is_not():
    model = model_of("gru", seed=2, gain=0.3)
    inputs = draw(1, 16, 30, 2)
    wide = hl.effective_window(model, inputs, 1e-2)
    near = hl.effective_window(model, inputs, 1e-2, bound="pasts")
    seen = hl.effective_window(model, inputs, 1e-2, bound="measured")
    assert seen.window <= near.window <= wide.window < 30
    assert hl.effective_window(model_of("tanh", gain=0.3), inputs, 1e-2, bound="pasts").window <= (
        hl.effective_window(model_of("tanh", gain=0.3), inputs, 1e-2).window
    )
    frame = wide.to_dataframe().set_index("window")
    assert frame.loc[wide.window, "bound"] <= 1e-2 < frame.loc[wide.window - 1, "bound"]
    assert seen.errors[seen.window - 2] > 1e-2 >= seen.errors[seen.window - 1 :].max()
    small = hl.truncate(model, wide)
    assert float((small(inputs) - model(inputs)).detach().abs().max()) == pytest.approx(wide.error)


def test_the_stated_share_covers_the_choice_among_all_windows():
    found = hl.effective_window(delay_line(3), draw(0, 100, 10, 1), 1e-6, bound="measured")
    # had more than this share been beyond, all 100 draws would miss it in some window once in 20 at most
    assert 10 * (1 - found.share) ** 100 == pytest.approx(0.05)


def test_where_no_bound_holds_it_says_why_and_truncate_refuses():
    model = model_of("tanh", hidden=8, seed=0, gain=2.5)
    inputs = draw(0, 8, 40, 2)
    found = hl.effective_window(model, inputs, 0.5)
    assert found.window is None
    assert math.isnan(found.error)
    with pytest.raises(hl.errors.ParameterError, match=r"cannot be truncated: .*(amplify|every step counts)"):
        hl.truncate(model, found)
    every = hl.effective_window(model, inputs, 1e-12, bound="measured")
    assert every.window is None
    assert "every step counts" in every.reason


def test_a_bidirectional_network_is_measured_but_not_proven():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        core = nn.GRU(2, 3, batch_first=True, bidirectional=True)
        model = hl.RecurrentModel(core, nn.Linear(6, 1)).double()
    inputs = draw(0, 8, 30, 2)
    with pytest.raises(hl.errors.UnsupportedModelError, match="bidirectional"):
        hl.effective_window(model, inputs, 1e-3)
    found = hl.effective_window(model, inputs, 1e-3, bound="measured")
    assert found.window < 30
    assert found.linear_window is None
    assert found.error <= 1e-3


def test_a_readout_after_every_step_and_bad_options_are_refused():
    model = model_of("tanh")
    model.info = hl.ModelInfo(every_step=True)
    with pytest.raises(hl.errors.UnsupportedModelError, match="after every step"):
        hl.effective_window(model, draw(0, 2, 5, 2), 0.1)
    with pytest.raises(hl.errors.UnsupportedModelError, match="after every step"):
        hl.truncate(model, 3)
    plain = model_of("tanh")
    with pytest.raises(hl.errors.ParameterError, match="tolerance"):
        hl.effective_window(plain, draw(0, 2, 5, 2), 0.0)
    with pytest.raises(hl.errors.UnknownNameError, match="measured"):
        hl.effective_window(plain, draw(0, 2, 5, 2), 0.1, bound="measurd")
    with pytest.raises(hl.errors.ParameterError, match="window"):
        hl.truncate(plain, 0)
    with pytest.raises(hl.errors.UnsupportedModelError, match="readout="):
        hl.truncate(plain.core, 3)
    with pytest.raises(hl.errors.ParameterError, match="its own read-out"):
        hl.truncate(plain, 3, readout=plain.readout)


# truncated models


def test_a_truncated_model_runs_its_last_valid_steps(tmp_path):
    model = model_of("gru", seed=1)
    inputs, lengths = draw(0, 4, 9, 2), torch.tensor([9, 5, 3, 1])
    small = hl.truncate(model.core, 4, readout=model.readout)
    assert model.info.window is None
    got = small(inputs, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(got[row], model(inputs[row : row + 1, max(0, length - 4) : length])[0])
    torch.testing.assert_close(small(inputs), model(inputs[:, 5:]))
    torch.testing.assert_close(small(inputs[:, :2]), model(inputs[:, :2]))
    back = hl.load(hl.save(small, tmp_path / "small.safetensors"))
    assert torch.equal(back(inputs), small(inputs))


def test_lengths_count_in_the_search():
    line = delay_line(4)
    inputs, lengths = draw(0, 6, 12, 1), torch.tensor([12, 11, 8, 6, 5, 2])
    for bound in ("range", "pasts"):
        found = hl.effective_window(line, inputs, 1e-9, lengths=lengths, bound=bound)
        assert found.window == 4
    noisy = inputs.clone()
    noisy[torch.arange(12) >= lengths[:, None]] = 1e6  # padding is never looked at
    assert hl.effective_window(line, noisy, 1e-9, lengths=lengths).window == 4


def test_the_users_model_and_the_random_state_stay():
    model = model_of("tanh").train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    hl.truncate(model, hl.effective_window(model, draw(0, 4, 8, 2), 10.0))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_windows_tried_are_all_short_ones_and_a_grid():
    assert candidates(1).tolist() == [1]
    assert candidates(5).tolist() == [1, 2, 3, 4, 5]
    long = candidates(700).tolist()
    assert long[:64] == list(range(1, 65))
    assert long[-1] == 700
    assert max(b / a for a, b in itertools.pairwise(long[63:])) < 1.06


def test_last_steps_of_padded_sequences():
    x = torch.arange(10.0).view(2, 5, 1)
    kept, sizes = last_steps(x, 3, torch.tensor([4, 2]))
    assert kept[0, :, 0].tolist() == [1, 2, 3]
    assert kept[1, :2, 0].tolist() == [5, 6]
    assert sizes.tolist() == [3, 2]
    assert last_steps(x, 9)[0].shape == (2, 5, 1)
