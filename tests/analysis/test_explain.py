"""Explanations add up exactly, agree with slow twins, and leave the model alone."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import hoplens as hl
from hoplens.analysis.attribution.paths import block_positions
from hoplens.models.cells.algebra import tanh_secant

F64 = torch.float64
KINDS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("GRU", {}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("RNN", {"bias": False}),
]


def make(kind: str, inputs: int = 3, hidden: int = 5, seed: int = 7, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return getattr(nn, kind)(inputs, hidden, batch_first=True, **options).double()


def head_for(module: nn.Module, outputs: int = 3) -> nn.Linear:
    shown = (module.proj_size or module.hidden_size) * (1 + module.bidirectional)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return nn.Linear(shown, outputs).double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def predict(module: nn.Module, head: nn.Module, x: Tensor, output: int) -> Tensor:
    with torch.no_grad():
        return head(module(x)[0][:, -1])[:, output]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("method", ["orders", "secant"])
def test_complete_to_rounding(method, kind, options, layers, bidirectional):
    module = make(kind, num_layers=layers, bidirectional=bidirectional, **options)
    head, x, base = head_for(module), 2 * noise(4, 6, 3), noise(6, 3, seed=5)
    found = hl.explain(module, x, readout=head, output=1, baseline=base, method=method)
    ends = [predict(module, head, z, 1) for z in (x, base.expand_as(x))]
    torch.testing.assert_close(found.output, ends[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.baseline_output, ends[1], rtol=1e-12, atol=1e-12)
    change = ends[0] - ends[1]
    for part in (found.values, found.by_hop, found.by_unit):
        torch.testing.assert_close(part.flatten(1).sum(1), change, rtol=0, atol=1e-12)
    assert float(found.gap.abs().max()) < 1e-12
    assert found.by_unit.shape == (4, head.in_features)
    assert found.by_hop.shape[1:] == (len(found.hops), 3)
    assert int(found.hops[0]) == layers + 1
    assert int(found.lags[0]) == 0


def autograd_path(module: nn.Module, head: nn.Module, x: Tensor, output: int, nodes: int) -> Tensor:
    places, weights = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros_like(x)
    for place, weight in zip(places, weights, strict=True):
        z = ((0.5 + 0.5 * place) * x).requires_grad_()
        y = head(module(z)[0][:, -1])[:, output].sum()
        total += 0.5 * weight * torch.autograd.grad(y, z)[0]
    return total * x


@pytest.mark.parametrize(("kind", "options"), [("RNN", {}), ("GRU", {}), ("LSTM", {"proj_size": 2})])
@pytest.mark.parametrize("layers", [1, 2])
def test_path_equals_integrated_gradients_by_autograd(kind, options, layers):
    module = make(kind, num_layers=layers, bidirectional=layers == 2, **options)
    head, x = head_for(module), noise(3, 5, 3)
    wanted = autograd_path(module, head, x, 2, 200)
    found = hl.explain(module, x, readout=head, output=2, method="path", steps=40)
    torch.testing.assert_close(found.values, wanted, rtol=1e-9, atol=1e-11)
    # secants on ever shorter pieces of the line converge to the same, and stay complete
    errors = []
    for steps in (1, 8, 64):
        fine = hl.explain(module, x, readout=head, output=2, method="secant", steps=steps)
        assert float(fine.gap.abs().max()) < 1e-12
        errors.append(float((fine.values - wanted).abs().max()))
    assert errors[2] < errors[1] / 20 < errors[0] / 20
    assert errors[2] < 1e-4


def test_path_takes_more_nodes_where_the_gap_asks_for_them():
    module = make("RNN")
    head, x = head_for(module), 8 * noise(3, 5, 3)
    change = predict(module, head, x, 0) - predict(module, head, torch.zeros_like(x), 0)
    found = hl.explain(module, x, readout=head, method="path", steps=2, tolerance=1e-6)
    assert float(found.relative_gap.max()) < 1e-6
    loose = hl.explain(module, x, readout=head, method="path", steps=2, tolerance=1e9)
    assert float(loose.relative_gap.max()) > 1e-3
    torch.testing.assert_close(loose.gap, change - loose.values.sum((1, 2)), rtol=1e-10, atol=1e-12)


def test_secant_equals_explicit_loops():
    """dh_t = S_t (W dh_(t-1) + W_in dx_t), hop by hop, with no vectors at all."""
    rnn, head, x, base = make("RNN", 2, 3), None, noise(1, 4, 2), noise(4, 2, seed=3)
    head = head_for(rnn, 1)
    w_in, w_rec, w_out = (w.tolist() for w in (rnn.weight_ih_l0, rnn.weight_hh_l0, head.weight))
    bias = (rnn.bias_ih_l0 + rnn.bias_hh_l0).tolist()

    def run(z: list) -> list:
        h, trace = [0.0] * 3, []
        for row in z:
            a = [
                bias[i]
                + sum(w_in[i][j] * row[j] for j in range(2))
                + sum(w_rec[i][j] * h[j] for j in range(3))
                for i in range(3)
            ]
            h = [float(np.tanh(v)) for v in a]
            trace.append((a, h))
        return trace

    one, two = run(x[0].tolist()), run(base.tolist())
    slope = [
        [(p - q) / (u - v) for u, v, p, q in zip(a, b, f, g, strict=True)]
        for (a, f), (b, g) in zip(one, two, strict=True)
    ]
    dx = (x[0] - base).tolist()
    wanted = torch.zeros(4, 2, dtype=F64)
    for t in range(4):
        for j in range(2):
            v = [slope[t][i] * w_in[i][j] * dx[t][j] for i in range(3)]
            for s in range(t + 1, 4):
                v = [slope[s][i] * sum(w_rec[i][m] * v[m] for m in range(3)) for i in range(3)]
            wanted[t, j] = sum(w_out[0][i] * v[i] for i in range(3))
    found = hl.explain(rnn, x, readout=head, baseline=base, method="secant")
    torch.testing.assert_close(found.values[0], wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.by_hop[0], wanted.flip(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("orders", [1, 2, 5])
def test_orders_equal_secants_block_by_block(orders):
    gru, x = make("GRU"), noise(2, 4, 3)
    head = head_for(gru)
    found = hl.explain(gru, x, readout=head, orders=orders, blocks=3, seed=4)
    total = torch.zeros_like(x)
    for places in block_positions(12, orders, 3, 4).view(orders, 4, 3):
        for block in range(3):
            before, after = (torch.where(places < edge, x, 0.0) for edge in (block, block + 1))
            piece = hl.explain(gru, after, readout=head, baseline=before, method="secant")
            total += piece.values / orders
    torch.testing.assert_close(found.values, total, rtol=1e-10, atol=1e-12)


def test_orders_come_in_pairs_and_equal_blocks():
    places = block_positions(13, 6, 4, 0)
    assert torch.equal(places[0::2] + places[1::2], torch.full((3, 13), 3))
    assert all(set(torch.bincount(row, minlength=4).tolist()) <= {3, 4} for row in places)
    assert not torch.equal(places[0], places[2])
    assert torch.equal(places, block_positions(13, 6, 4, 0))


def test_many_orders_reach_shapley_values():
    """All 3! orders of three cells by hand, against many drawn ones with a block for each cell."""
    from itertools import permutations

    rnn, x = make("RNN", 1), 5 * noise(1, 3, 1)
    head = head_for(rnn)
    wanted = torch.zeros(3, dtype=F64)
    for order in permutations(range(3)):
        z = torch.zeros_like(x)
        for cell in order:
            old = predict(rnn, head, z, 0)
            z[0, cell] = x[0, cell]
            wanted[cell] += (predict(rnn, head, z, 0) - old)[0] / 6
    found = hl.explain(rnn, x, readout=head, orders=4000, blocks=3)
    miss = (found.values.flatten() - wanted).abs()
    assert bool((miss <= 4 * found.error.flatten() + 1e-12).all())
    # and this is not because all methods agree here
    other = hl.explain(rnn, x, readout=head, method="secant").values.flatten()
    assert float(miss.max()) < 0.2 * float((other - wanted).abs().max())


@pytest.mark.parametrize("method", ["orders", "secant", "path"])
@pytest.mark.parametrize("layers", [1, 2])
def test_linear_networks_are_explained_by_their_hop_maps(method, layers):
    rnns = [make("RNN", 3 if n == 0 else 4, 4, seed=n) for n in range(layers)]
    cells = [
        hl.models.RnnCell(r.weight_ih_l0, r.weight_hh_l0, r.bias_ih_l0, r.bias_hh_l0, nonlinearity="linear")
        for r in rnns
    ]
    head, x, base = noise(2, 4, seed=8), noise(3, 6, 3), noise(6, 3, seed=9)
    found = hl.explain(cells, x, readout=head, output=1, baseline=base, method=method)
    maps = hl.hop_maps(hl.read(cells, readout=head), 6)
    wanted = maps.values[:, 1] * (x - base).flip(1)  # hop k carries the input of lag k - 1 - layers
    torch.testing.assert_close(found.by_hop, wanted, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found.values, wanted.flip(1), rtol=1e-11, atol=1e-13)
    assert torch.equal(found.hops, maps.hops)
    assert torch.equal(found.lags, maps.lags)


def test_hops_of_a_deep_bidirectional_network_equal_the_walks_of_its_graph():
    """A linear stack that goes both ways: each hop is a power of its adjacency matrix unrolled in time."""
    torch.manual_seed(0)
    cells = [
        [
            hl.models.RnnCell(noise(2, n, seed=s), 0.7 * noise(2, 2, seed=s + 1), nonlinearity="linear")
            for s in pair
        ]
        for n, pair in ((1, (1, 3)), (4, (5, 7)))
    ]
    stack = hl.Stack(tuple(tuple(level) for level in cells), noise(1, 4, seed=9), "test")
    steps = 4
    x = noise(1, steps, 1)
    found = hl.explain(stack, x)

    def node(level: int, direction: int, t: int) -> slice:
        place = 2 * ((level * 2 + direction) * steps + t)
        return slice(place, place + 2)

    weights = torch.zeros(8 * steps, 8 * steps, dtype=F64)
    for level, pair in enumerate(cells):
        for direction, cell in enumerate(pair):
            for t in range(steps):
                old = t + 1 if direction else t - 1
                if 0 <= old < steps:
                    weights[node(level, direction, t), node(level, direction, old)] = cell.w_hh
                for below in range(2 * level):
                    part = slice(2 * below, 2 * below + 2)
                    weights[node(1, direction, t), node(0, below, t)] = cell.w_ih[:, part]
    out = torch.zeros(8 * steps, dtype=F64)
    for direction in range(2):
        out[node(1, direction, steps - 1)] = stack.w_out[0, 2 * direction : 2 * direction + 2]
    wanted = torch.zeros(steps, len(found.hops), dtype=F64)
    for t in range(steps):
        v = torch.zeros(8 * steps, dtype=F64)
        for direction in range(2):
            v[node(0, direction, t)] = cells[0][direction].w_ih[:, 0] * x[0, t, 0]
        for k in range(2, 2 + len(found.hops) + 1):
            if k >= 3:
                wanted[t, k - 3] = out @ v
            v = weights @ v
    torch.testing.assert_close(found.by_hop[0, :, 0], wanted.sum(0), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.values[0, :, 0], wanted.sum(1), rtol=1e-11, atol=1e-12)
    assert bool((wanted.count_nonzero(dim=1) > 1).any())  # several hops at one time step


def test_sequences_of_different_lengths():
    for kind, both in (("LSTM", False), ("GRU", True)):
        module = make(kind, num_layers=2, bidirectional=both)
        head, x, lengths = head_for(module), noise(3, 6, 3), torch.tensor([6, 2, 4])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        found = hl.explain(module, packed, readout=head, output=1, baseline=torch.ones(3), method="secant")
        for n, length in enumerate(lengths.tolist()):
            alone = hl.explain(
                module, x[n : n + 1, :length], readout=head, output=1, baseline=torch.ones(3), method="secant"
            )
            torch.testing.assert_close(found.values[n, :length], alone.values[0], rtol=1e-10, atol=1e-12)
            assert not found.values[n, length:].any()
            torch.testing.assert_close(
                found.by_hop[n, : len(alone.hops)], alone.by_hop[0], rtol=1e-10, atol=1e-12
            )
        assert len(found.to_dataframe()) == 12 * 3
        assert found.to_dataframe()["lag"].min() == 0


def test_a_cell_known_by_its_step_alone_is_complete_to_the_tolerance():
    def step(state: Tensor, x: Tensor) -> Tensor:
        return torch.sin(1.5 * state + x.sum(-1, keepdim=True)) + 0.1 * x.prod(-1, keepdim=True)

    cell = hl.models.FunctionCell(step, n_inputs=2, n_state=3)
    x, readout = 2 * noise(4, 5, 2), noise(1, 3, seed=3)
    coarse = hl.explain(cell, x, readout=readout, method="secant", tolerance=1e9)
    fine = hl.explain(cell, x, readout=readout, method="secant", tolerance=1e-10)
    assert float(fine.relative_gap.max()) < 1e-10 < float(coarse.relative_gap.max())


def test_subclass_with_its_own_step_is_not_taken_for_its_base():
    class Squared(hl.models.RnnCell):
        def step(self, state: Tensor, x: Tensor) -> Tensor:
            return super().step(state, x) ** 2

        def save(self, state: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            return hl.Cell.save(self, state, x)

        def pull(self, saved: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, Tensor]:
            return hl.Cell.pull(self, saved, rows)

    found = hl.explain(Squared(noise(3, 2), noise(3, 3)), noise(2, 4, 2), readout=noise(1, 3, seed=4))
    assert float(found.relative_gap.max()) < 1e-3


def test_cells_leaky_units_time_first_and_single_precision():
    x = noise(3, 5, 2)
    for kind in ("RNNCell", "GRUCell", "LSTMCell"):
        cell = getattr(nn, kind)(2, 4).double()
        assert float(hl.explain(cell, x, readout=noise(1, 4)).gap.abs().max()) < 1e-12
    leaky = hl.models.RnnCell(noise(4, 2), noise(4, 4), leak=0.3)
    assert float(hl.explain(leaky, x, readout=noise(1, 4)).gap.abs().max()) < 1e-12
    rnn = nn.RNN(2, 4).double()
    other = nn.RNN(2, 4, batch_first=True).double()
    other.load_state_dict(rnn.state_dict())
    readout = noise(1, 4)
    first = hl.explain(rnn, x.transpose(0, 1), readout=readout, baseline=x.flip(0).transpose(0, 1))
    last = hl.explain(other, x, readout=readout, baseline=x.flip(0))
    torch.testing.assert_close(first.values, last.values)
    for kind, options in KINDS:
        module = make(kind, **options).float()
        head = head_for(module).float()
        single = hl.explain(module, x[..., :1].expand(-1, -1, 3).float(), readout=head)
        assert float(single.relative_gap.max()) < 1e-3
        assert single.values.dtype == F64


# small differences in single precision: the slopes must not be rounding noise
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-5, 1e-3, 0.1, 3.0, 30.0])
def test_secants_are_exact_at_every_distance(gap, dtype):
    u = torch.linspace(-3, 3, 41, dtype=dtype)
    v = u + gap
    slope = tanh_secant(v - u, u.tanh(), v.tanh()).double()
    wide = (v.double() - u.double(), u.double(), v.double())
    exact = torch.where(wide[0] == 0, 1.0, wide[0].tanh() / torch.where(wide[0] == 0, 1.0, wide[0]))
    exact = exact * (1 - wide[1].tanh() * wide[2].tanh())
    eps = torch.finfo(dtype).eps
    assert float((slope - exact).abs().max()) < (100 * eps if gap > 1e-2 else 500 * eps)
    assert float(((slope - exact) * wide[0]).abs().max()) < 4 * eps


@given(st.integers(0, 10**6), st.sampled_from(["orders", "secant", "path"]))
def test_numbering_of_hidden_units_does_not_matter(seed, method):
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(4, generator=g)
    w_in, w_rec, b, w_out = noise(4, 2), noise(4, 4, seed=1), noise(4, seed=2), noise(1, 4, seed=3)
    x = torch.randn(2, 3, 2, generator=g, dtype=F64)
    one = hl.explain(hl.models.RnnCell(w_in, w_rec, b), x, readout=w_out, method=method)
    two = hl.explain(
        hl.models.RnnCell(w_in[order], w_rec[order][:, order], b[order]),
        x,
        readout=w_out[:, order],
        method=method,
    )
    torch.testing.assert_close(one.values, two.values, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(one.by_unit[:, order], two.by_unit, rtol=1e-9, atol=1e-11)


@given(st.integers(0, 10**6), st.sampled_from(["RNN", "GRU", "LSTM"]))
def test_what_does_not_differ_contributes_nothing(seed, kind):
    x = noise(2, 4, 3, seed=seed)
    base = x.clone()
    base[:, 1, 2] += 1
    module = make(kind)
    found = hl.explain(module, x, readout=head_for(module), baseline=base)
    rest = found.values.clone()
    rest[:, 1, 2] = 0
    assert not rest.any()
    torch.testing.assert_close(found.values[:, 1, 2], found.difference, rtol=1e-9, atol=1e-13)
    same = hl.explain(module, x, readout=head_for(module), baseline=x)
    assert not same.values.any()
    assert not same.difference.any()
    assert not same.relative_gap.any()


@given(st.integers(0, 10**6))
def test_linear_networks_add(seed):
    cell = hl.models.RnnCell(noise(3, 2), noise(3, 3, seed=1), nonlinearity="linear")
    x, y = noise(1, 4, 2, seed=seed), noise(1, 4, 2, seed=seed + 1)
    parts = [hl.explain(cell, z, readout=noise(1, 3, seed=2)).values for z in (x, y, x + y)]
    torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=1e-9, atol=1e-11)


def test_samples_do_not_depend_on_each_other_nor_on_memory(monkeypatch):
    lstm, x = make("LSTM", num_layers=2), noise(5, 4, 3)
    head = head_for(lstm)
    output = torch.tensor([0, 2, 1, 0, 2])
    whole = hl.explain(lstm, x, readout=head, output=output)
    for n in range(5):
        alone = hl.explain(lstm, x[n : n + 1], readout=head, output=int(output[n]))
        torch.testing.assert_close(whole.values[n], alone.values[0], rtol=1e-10, atol=1e-12)
    import sys

    monkeypatch.setattr(sys.modules["hoplens.analysis.attribution.explaining"], "WORKING_SET", 1)
    monkeypatch.setattr(sys.modules["hoplens.analysis.attribution.flow"], "AT_ONCE", 1)
    small = hl.explain(lstm, x, readout=head, output=output)
    torch.testing.assert_close(whole.values, small.values, rtol=1e-10, atol=1e-12)


def test_baselines_and_names():
    rnn, x = make("RNN"), noise(4, 5, 3)
    head = head_for(rnn)
    zeros = hl.explain(rnn, x, readout=head)
    for same in (torch.zeros(3), np.zeros((5, 3)), torch.zeros(4, 5, 3)):
        assert torch.equal(hl.explain(rnn, x, readout=head, baseline=same).values, zeros.values)
    mean = hl.explain(rnn, x, readout=head, baseline="mean")
    assert torch.equal(mean.baseline, x.mean(0).expand_as(x))
    named = hl.explain(rnn, x, readout=head, output="no", output_names=["yes", "no", "perhaps"])
    assert torch.equal(named.values, hl.explain(rnn, x, readout=head, output=1).values)
    assert torch.equal(named.values, hl.explain(rnn, x, readout=head, output="y1").values)


def test_results_as_tables_text_and_plain_data():
    rnn, x = make("RNN"), noise(4, 5, 3)
    found = hl.explain(rnn, x, readout=head_for(rnn), output=[0, 1, 2, 0], input_names=["a", "b", "c"])
    frame = found.to_dataframe()
    assert list(frame.columns) == [
        "sample",
        "step",
        "lag",
        "input",
        "value",
        "baseline",
        "contribution",
        "error",
        "spread",
    ]
    row = frame[(frame["sample"] == 2) & (frame["step"] == 3) & (frame["input"] == "b")].iloc[0]
    assert row["contribution"] == float(found.values[2, 3, 1])
    assert row["lag"] == 1
    top = found.top(3, sample=2)
    assert len(top) == 3
    best = found.values[2].abs().flatten().topk(3).values
    assert top["contribution"].abs().tolist() == best.tolist()
    assert set(top["sample"]) == {2}
    everything = found.top(100, sample=1)
    assert everything["share"].sum() == pytest.approx(1)
    modules = found.by_module(["left", "left", "right", "left", "right"])
    sums = modules.set_index(["sample", "module"])["contribution"]
    assert sums[1, "right"] == pytest.approx(float(found.by_unit[1, [2, 4]].sum()))
    assert len(modules) == 8
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["values"] == found.values.tolist()
    assert plain["schema"] == 1
    assert plain["input_names"] == ["a", "b", "c"]
    assert "4 samples x 5 steps x 3 inputs" in repr(found)
    assert found.one(2).values.shape == (1, 5, 3)


def test_error_shrinks_with_orders_and_says_when_it_cannot_be_known():
    rnn, x = make("RNN"), 2 * noise(3, 5, 3)
    head = head_for(rnn)
    few, many = (hl.explain(rnn, x, readout=head, orders=n) for n in (8, 512))
    assert float(many.error.mean()) < 0.25 * float(few.error.mean())
    assert bool(hl.explain(rnn, x, readout=head, orders=2).error.isnan().all())
    json.dumps(hl.explain(rnn, x, readout=head, orders=2).to_dict(), allow_nan=False)
    assert not hl.explain(rnn, x, readout=head, method="secant").error.any()


def test_plot_is_centred_at_zero_and_shows_the_values():
    rnn, x = make("RNN"), noise(2, 5, 3)
    found = hl.explain(rnn, x, readout=head_for(rnn))
    ax = found.plot(sample=1)
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()), found.values[1].numpy().T)
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert found.plot(ax=ax) is ax


def test_the_model_is_left_as_it_was_also_on_errors():
    model = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5).train()
    head = nn.Linear(4, 2)
    model.weight_hh_l0.requires_grad_(False)
    head(model(torch.ones(1, 2, 3))[0][:, -1]).sum().backward()
    model.register_forward_hook(lambda *_: pytest.fail("the model's hooks were called"))
    before, grads = copy.deepcopy(model.state_dict()), model.weight_ih_l0.grad.clone()
    rng = torch.get_rng_state()
    hl.explain(model, torch.ones(1, 3, 3), readout=head)
    with pytest.raises(hl.HoplensError):
        hl.explain(model, torch.full((1, 3, 3), torch.nan), readout=head)
    assert torch.equal(rng, torch.get_rng_state())
    assert model.training
    assert not model.weight_hh_l0.requires_grad
    assert model.weight_ih_l0.requires_grad
    assert torch.equal(grads, model.weight_ih_l0.grad)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.is_grad_enabled()


RNN, HEAD, X = make("RNN"), head_for(make("RNN")), noise(2, 4, 3)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"inputs": X * torch.nan}, hl.errors.NonFiniteError, "inputs must be finite"),
        ({"inputs": X[0]}, hl.errors.ShapeError, r"inputs must have shape \(B, L, I\)"),
        ({"inputs": X[..., :2]}, hl.errors.ShapeError, "with I = 3"),
        ({"readout": None}, hl.errors.UnsupportedModelError, "explain needs the read-out"),
        ({"readout": nn.Linear(3, 2)}, hl.errors.ShapeError, "readout must take the 5 hidden units"),
        ({"output": "yes"}, hl.errors.UnknownNameError, "unknown output 'yes'; known: y0, y1, y2"),
        ({"output": 3}, hl.errors.ParameterError, r"output must lie in 0 .. 2 for 3 outputs, got 3"),
        ({"output": -1}, hl.errors.ParameterError, "output must lie in 0"),
        ({"output": 0.5}, hl.errors.ParameterError, "output must be a name, a whole number"),
        ({"output": [0, 1, 2]}, hl.errors.ParameterError, "one whole number for each of the 2 samples"),
        ({"output": None}, hl.errors.ParameterError, "output must be a name, a whole number"),
        ({"baseline": torch.zeros(4)}, hl.errors.ShapeError, r"baseline must have shape \(3,\), \(4, 3\)"),
        ({"baseline": torch.full((3,), torch.inf)}, hl.errors.NonFiniteError, "baseline must be finite"),
        ({"baseline": "median"}, hl.errors.ParameterError, 'None (zeros), "mean" or a tensor'),
        ({"baseline": "mean", "inputs": X[:1]}, hl.errors.ParameterError, "of a single sample"),
        ({"baseline": object()}, hl.errors.ShapeError, "baseline must be a numeric array"),
        ({"method": "shap"}, hl.errors.UnknownNameError, "unknown method"),
        ({"orders": 0}, hl.errors.ParameterError, "orders must be a whole number of at least 1"),
        ({"blocks": 1.5}, hl.errors.ParameterError, "blocks must be a whole number"),
        ({"steps": 0}, hl.errors.ParameterError, "steps must be a whole number"),
        ({"seed": -1}, hl.errors.ParameterError, "seed must be a whole number"),
        ({"tolerance": 0}, hl.errors.ParameterError, "tolerance must be a finite number above 0"),
        ({"input_names": ["a"]}, hl.errors.ShapeError, "input_names"),
        ({"rnn": "rnn"}, hl.errors.ParameterError, "go with a file"),
        ({"model": nn.Linear(3, 2)}, hl.errors.UnsupportedModelError, "cannot read a Linear"),
        ({"model": "nowhere.pt"}, hl.errors.FileError, "no file"),
    ],
)
def test_bad_input_is_one_clear_sentence(change, kind, says):
    options = {"model": RNN, "inputs": X, "readout": HEAD, **change}
    model, inputs = options.pop("model"), options.pop("inputs")
    with pytest.raises(kind, match=says.replace("(zeros)", r"\(zeros\)")) as caught:
        hl.explain(model, inputs, **options)
    assert "\n" not in str(caught.value)


def test_broken_weights_and_wrong_selections():
    broken = make("GRU")
    with torch.no_grad():
        broken.weight_hh_l0[0, 0] = torch.nan
    with pytest.raises(hl.errors.NonFiniteError, match="w_hh of the GRU"):
        hl.explain(broken, X, readout=HEAD)
    found = hl.explain(RNN, X, readout=HEAD)
    with pytest.raises(hl.errors.ParameterError, match=r"sample must lie in 0 .. 1"):
        found.plot(sample=2)
    with pytest.raises(hl.errors.ShapeError, match="one module for each of the 5 units"):
        found.by_module(["a", "b"])
