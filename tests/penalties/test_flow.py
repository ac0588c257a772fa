"""The penalty along data: trajectory maps, literal formulas, frozen slopes and the hand-written adjoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ensembles import draw_inputs, each_cell, random_ensemble
from torch import nn
from twins import assert_near

import hoplens as hl
from hoplens.models.cells import CELLS
from hoplens.models.ensemble import Ensemble
from hoplens.penalties.flow import FlowPenalty, FlowSpec
from hoplens.penalties.held import by_lag, held_flow, slopes_along
from hoplens.training.bptt import make_recurrence

each_length = pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 2, 4]])
each_norm = pytest.mark.parametrize("norm", ["l1", "frobenius"])
F64 = torch.float64


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def sizes(maps, norm):
    return maps.abs().sum((-2, -1)) if norm == "l1" else torch.linalg.vector_norm(maps, dim=(-2, -1))


def literal(model, inputs, lengths, damping, *, every_step=False, norm="l1"):
    """Mean over sequences (and read-outs) of the damped size of the exact Jacobian maps."""
    total = 0.0
    for n, length in enumerate(lengths.tolist()):
        ends = range(1, length + 1) if every_step else (length,)
        for end in ends:
            maps = hl.trajectory_maps(model, inputs[n : n + 1, :end]).values[0]
            hops = (end - torch.arange(end) + 1).double()
            total += float((damping**hops * sizes(maps, norm)).sum()) / len(ends)
    return total / len(lengths)


def trained(ensemble, penalty, inputs, lengths, factors, *, every_step=False):
    """Value and gradients of training: states from its recurrence, the adjoint by hand."""
    batch = inputs.permute(1, 2, 0)[:, None].expand(-1, ensemble.size, -1, -1).contiguous()
    run = make_recurrence(ensemble, batch.shape[3], len(batch))
    run.forward(batch)
    rows = slice(0, ensemble.size)
    with torch.no_grad():
        flow = penalty.gradients_along(
            ensemble,
            batch,
            lengths.expand(ensemble.size, -1),
            every_step,
            factors,
            lambda columns, steps: run.before_steps(rows, columns, steps),
        )
    weight = ensemble.weight.clone().requires_grad_()
    w_x, w_h, _ = ensemble.kernel.projections(weight, ensemble.n_hidden)
    (by_weight,) = torch.autograd.grad([w_x, w_h], weight, [flow.w_x, flow.w_h])
    return flow.value, by_weight, flow.readout


def twin(ensemble, penalty, inputs, lengths, factors, *, every_step=False):
    """The same by plain operations and autograd."""
    batch = inputs.permute(1, 2, 0)[:, None].expand(-1, ensemble.size, -1, -1)
    leaves = ensemble.weight.clone().requires_grad_(), ensemble.readout.clone().requires_grad_()
    moved = replace(ensemble, weight=leaves[0], readout=leaves[1])
    value = penalty.along(moved, batch, lengths.expand(ensemble.size, -1), every_step)
    return value.detach(), *torch.autograd.grad((factors * value).sum(), leaves)


@each_cell
@each_length
@pytest.mark.parametrize("slopes", ["held", "free"])
@each_norm
def test_following_everything_is_the_size_of_all_trajectory_maps(cell, lengths, slopes, norm):
    ensemble = random_ensemble(cell)
    inputs, lengths = draw_inputs(3, 6, 2), torch.tensor(lengths)
    penalty = FlowPenalty(0.8, sequences=3, norm=norm, slopes=slopes, generator=source())
    batch = inputs.permute(1, 2, 0)[:, None].expand(-1, 3, -1, -1)
    together = penalty.along(ensemble, batch, lengths.expand(3, -1)).detach()
    for n in range(3):
        wanted = literal(ensemble.model(n), inputs, lengths, 0.8, norm=norm)
        assert float(together[n]) == pytest.approx(wanted, rel=1e-10)
        alone = penalty(ensemble.model(n), inputs, lengths)
        assert float(alone.detach()) == pytest.approx(wanted, rel=1e-10)


@each_cell
@each_length
@each_norm
@pytest.mark.parametrize("every_step", [False, True])
def test_the_hand_written_gradient_is_the_plain_one(cell, lengths, norm, every_step):
    ensemble, factors = random_ensemble(cell), torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    inputs, lengths = draw_inputs(3, 6, 2), torch.tensor(lengths)
    results = []
    for way in (trained, twin):
        penalty = FlowPenalty(0.8, sequences=2, norm=norm, generator=source())
        results.append(way(ensemble, penalty, inputs, lengths, factors, every_step=every_step))
    for got, wanted in zip(*results, strict=True):
        assert_near(got, wanted)


@each_cell
def test_a_users_loop_and_training_follow_the_same_gradient(cell):
    ensemble, factors = random_ensemble(cell), torch.ones(3, dtype=F64)
    inputs, lengths = draw_inputs(3, 6, 2), torch.tensor([6, 2, 4])
    value, by_weight, by_readout = trained(
        ensemble, FlowPenalty(0.8, sequences=3, generator=source()), inputs, lengths, factors
    )
    for n in range(3):
        model = ensemble.model(n)
        own = FlowPenalty(0.8, sequences=3, generator=source())(model, inputs, lengths)
        own.backward()
        assert_near(own.detach(), value[n])
        assert_near(model.readout.weight.grad, by_readout[n])
        names = dict(model.core.named_parameters())
        grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in names.items()}
        # weights stand once in the ensemble; its module names them as the module does
        wanted = ensemble.kernel.to_module(by_weight[n] * ensemble.structure(), ensemble.n_hidden)
        for name, grad in wanted.items():
            if "bias" not in name:
                assert_near(grads[name], grad)


@each_cell
def test_the_gradient_is_that_of_frozen_slopes(cell):
    """Finite differences of the value by the projections and the read-out, slopes as they were."""
    ensemble = random_ensemble(cell, networks=1, hidden=3)
    inputs = draw_inputs(4, 2, 5)[:, None].transpose(2, 2)  # (L, 1, I, b)
    run = make_recurrence(ensemble, 5, 4)
    run.forward(inputs)
    before = run.before_steps(slice(0, 1), torch.arange(5), 4)
    with torch.no_grad():
        slopes, routes = slopes_along(ensemble, before, inputs)
        slopes = by_lag(slopes, torch.tensor([[3, 3, 1, 2, 3]]))
        weights, one = 0.9 ** torch.arange(2, 6).double(), torch.ones(1, dtype=F64)
        flow = held_flow(ensemble, slopes, routes, weights, one)
        w_x, w_h, bias = (p.contiguous().clone() for p in ensemble.kernel.projections(ensemble.weight, 3))

        class Frozen:  # the kernel's projections are the tensors that are moved
            @staticmethod
            def projections(weight, hidden):
                return w_x, w_h, bias

        moved = ensemble.clone()
        object.__setattr__(moved, "kernel", Frozen)
        for tensor, grad in ((w_x, flow.w_x), (w_h, flow.w_h), (moved.readout, flow.readout)):
            for place in torch.randperm(tensor.numel(), generator=source())[:12].tolist():
                entry, kept = tensor.view(-1), float(tensor.view(-1)[place])
                values = []
                for step in (1e-6, -1e-6):
                    entry[place] = kept + step
                    values.append(float(held_flow(moved, slopes, routes, weights, one).value))
                entry[place] = kept
                assert (values[0] - values[1]) / 2e-6 == pytest.approx(
                    float(grad.reshape(-1)[place]), abs=2e-6
                )


def test_of_tanh_units_it_is_the_formula():
    """W_out D_T W_rec D_(T-1) .. W_in with D constant, written out."""
    model = hl.RecurrentModel(nn.RNN(2, 4, batch_first=True), nn.Linear(4, 3)).double()
    x = draw_inputs(1, 5, 2)
    core, readout = model.core, model.readout.weight
    states = core(x)[0][0].detach()
    maps, rows = [], readout
    for t in range(4, -1, -1):
        rows = rows * (1 - states[t] ** 2)
        maps.append(rows @ core.weight_ih_l0)
        rows = rows @ core.weight_hh_l0
    wanted = sum(0.9 ** (n + 2) * m.abs().sum() for n, m in enumerate(maps))
    got = FlowPenalty(0.9, generator=source())(model, x)
    assert_near(got, wanted)
    names = [core.weight_ih_l0, core.weight_hh_l0, readout]
    for a, b in zip(torch.autograd.grad(got, names), torch.autograd.grad(wanted, names), strict=True):
        assert_near(a, b)


def test_coefficients_of_gated_cells_are_those_of_the_documentation():
    """GRU: slopes of h' by r, u, x_n, h_n and h. LSTM: of h' and c' by i, f, o, g and c. See docs/flow.md."""
    for cell in ("gru", "lstm"):
        ensemble = random_ensemble(cell, networks=1, hidden=3)
        inputs = draw_inputs(2, 1, 2, 4)
        run = ensemble.run(inputs)
        h, memory = run[0]
        zeros = torch.zeros_like(h)
        before = [torch.stack([zeros, h])] + ([] if memory is None else [torch.stack([zeros, memory])])
        slopes, _ = slopes_along(ensemble, before, inputs)  # (L, E, parts, leaves, H, b)
        w_x, w_h, bias = ensemble.kernel.projections(ensemble.weight, 3)
        z = (w_x @ inputs[1] + w_h @ h + bias).split(3, dim=1)
        if cell == "gru":
            r, u = z[0].sigmoid(), z[1].sigmoid()
            n = (z[2] + r * z[3]).tanh()
            inner = (1 - u) * (1 - n**2)
            wanted = [[inner * z[3] * r * (1 - r), (h - n) * u * (1 - u), inner, inner * r, u]]
        else:
            i, f, o, g = z[0].sigmoid(), z[1].sigmoid(), z[2].sigmoid(), z[3].tanh()
            squashed = (f * memory + i * g).tanh()
            outer = o * (1 - squashed**2)
            by_c = [g * i * (1 - i), memory * f * (1 - f), zeros, i * (1 - g**2), f]
            by_h = [outer * value for value in by_c]
            by_h[2] = squashed * o * (1 - o)
            wanted = [by_h, by_c]
        assert_near(slopes[1], torch.stack([torch.stack(part, dim=1) for part in wanted], dim=1))


@pytest.mark.parametrize("levels", [1, 2])
def test_of_a_linear_network_it_is_the_penalty_on_its_pathways(levels):
    w = [0.5 * draw_inputs(4, 4, seed=n) for n in range(3)]
    cells = [hl.models.cells.RnnCell(draw_inputs(4, 2, seed=7), w[0], nonlinearity="linear")]
    if levels == 2:
        cells.append(hl.models.cells.RnnCell(w[1], w[2], nonlinearity="linear"))
    stack = hl.Stack(tuple((cell,) for cell in cells), draw_inputs(3, 4, seed=8), "linear")
    net = hl.read(stack)
    penalty = FlowPenalty(0.9, generator=source())
    horizon = 6 + levels  # edges from a layer to the next count as hops
    assert_near(penalty(stack, draw_inputs(5, 7, 2)), hl.PathwayPenalty(horizon, damping=0.9)(net))
    every = FlowPenalty(0.9, sequences=5000, every_step=True, generator=source())
    if levels == 1:
        wanted = hl.PathwayPenalty(7, damping=0.9, readouts="every")(net)
        assert float(every(stack, draw_inputs(5000, 7, 2))) == pytest.approx(float(wanted), rel=0.03)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("slopes", ["held", "free"])
def test_samples_have_the_whole_as_their_mean(every_step, slopes):
    ensemble = random_ensemble("gru", networks=1)
    model = ensemble.model(0)
    inputs, lengths = draw_inputs(5, 6, 2), torch.tensor([6, 3, 5, 6, 2])
    options = {"outputs": 2, "every_step": every_step, "slopes": slopes}
    penalty = FlowPenalty(0.9, sequences=2, **options, generator=source())
    mean = torch.stack([penalty(model, inputs, lengths).detach() for _ in range(600)]).mean()
    wanted = literal(model, inputs, lengths, 0.9, every_step=every_step)
    assert float(mean) == pytest.approx(wanted, rel=0.05)


def test_of_many_outputs_a_sample_is_followed_and_scaled():
    ensemble = random_ensemble("tanh", networks=2, outputs=40)
    inputs, lengths = draw_inputs(2, 5, 2), torch.tensor([5, 5])
    ones = torch.ones(2, dtype=F64)
    penalty = FlowPenalty(sequences=2, generator=source())
    _, _, readout = trained(ensemble, penalty, inputs, lengths, ones)
    assert int((readout != 0).any(2).sum(1)[0]) == 16
    draws = [trained(ensemble, penalty, inputs, lengths, ones) for _ in range(300)]
    wanted = [literal(ensemble.model(n), inputs, lengths, 1.0) for n in range(2)]
    assert torch.stack([value for value, _, _ in draws]).mean(0).tolist() == pytest.approx(wanted, rel=0.05)
    whole = FlowPenalty(sequences=2, outputs=40, generator=source())
    exact = trained(ensemble, whole, inputs, lengths, ones)
    mean = torch.stack([readout for _, _, readout in draws]).mean(0)
    assert float((mean - exact[2]).norm() / exact[2].norm()) < 0.15


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ("relu", "linear")])
def test_the_gradient_of_free_slopes_passes_gradcheck(cell):
    ensemble = random_ensemble(cell, networks=2, hidden=3)
    inputs, lengths = draw_inputs(4, 2, 2, 3), torch.tensor([[4, 2, 3], [4, 4, 1]])

    def value(weight, readout):
        moved = Ensemble(weight, readout, ensemble.offset, ensemble.cell, ensemble.leak)
        penalty = FlowPenalty(0.9, sequences=2, slopes="free", generator=source(3))  # the same draws
        return penalty.along(moved, inputs, lengths)

    leaves = (ensemble.weight.requires_grad_(), ensemble.readout.requires_grad_())
    assert torch.autograd.gradcheck(value, leaves)


def cores():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            nn.RNN(2, 8, batch_first=True),
            nn.RNN(2, 8, nonlinearity="relu"),
            nn.GRU(2, 8, num_layers=2, batch_first=True),
            nn.LSTM(2, 8, proj_size=4, batch_first=True),
            nn.LSTM(2, 8, batch_first=True, bidirectional=True),
            hl.LeakyRNN(2, 8, 0.5),
        ]


@pytest.mark.parametrize("core", cores(), ids=str)
def test_a_users_own_model_learns_with_it_and_is_left_as_it_was(core):
    width = (getattr(core, "proj_size", 0) or 8) * (2 if core.bidirectional else 1)
    head, generator = nn.Linear(width, 3), source(1)
    inputs = torch.randn(16, 7, 2, generator=generator)
    inputs = inputs if core.batch_first else inputs.transpose(0, 1)
    penalty = FlowPenalty(generator=generator)
    whole = FlowPenalty(sequences=16, generator=generator)
    parameters = [*core.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    before = float(whole(core, inputs, readout=head).detach())
    core.train()
    for _ in range(40):
        optimiser.zero_grad()
        penalty(core, inputs, readout=head).backward()
        optimiser.step()
    assert core.training
    assert all(p.requires_grad for p in parameters)
    assert float(whole(core, inputs, readout=head).detach()) < 0.5 * before


def test_held_slopes_do_not_saturate_units_and_free_ones_do():
    """The reason for holding them: biases get no gradient, so that units cannot be driven to their bounds."""
    model = hl.RecurrentModel(nn.RNN(2, 4, batch_first=True), nn.Linear(4, 3))
    x = torch.randn(3, 5, 2, generator=source())
    for slopes, moved in (("held", False), ("free", True)):
        model.zero_grad()
        FlowPenalty(slopes=slopes, generator=source())(model, x).backward()
        bias = model.core.bias_ih_l0.grad
        assert (bias is not None and bool((bias != 0).any())) is moved


def test_a_specification_draws_anew_for_each_training():
    spec = FlowSpec(sequences=2)
    first, second = spec(6, readouts="every"), spec(6)
    assert first.every_step
    assert not second.every_step
    ensemble, inputs = random_ensemble("tanh"), draw_inputs(6, 3, 2, 5)
    lengths = torch.full((3, 5), 6)
    assert torch.equal(spec(6).along(ensemble, inputs, lengths), second.along(ensemble, inputs, lengths))


def test_draws_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    model = random_ensemble("lstm").model(0)
    FlowPenalty(generator=source())(model, draw_inputs(3, 6, 2))
    assert torch.equal(state, torch.random.get_rng_state())


class StepOnly(hl.Cell):
    def step(self, state, x):
        return (state + x).sin()


def test_what_it_cannot_follow_is_said():
    penalty = FlowPenalty(generator=source())
    model = random_ensemble("gru").model(0)
    with pytest.raises(hl.errors.UnsupportedModelError, match="along its data"):
        penalty(hl.read(model.core, readout=model.readout))
    with pytest.raises(hl.errors.UnsupportedModelError, match="along its data"):
        penalty(model)
    with pytest.raises(hl.errors.ShapeError, match="inputs must have shape"):
        penalty(model, draw_inputs(6, 2))
    with pytest.raises(hl.errors.UnsupportedModelError, match=r'cannot be held.*slopes="free"'):
        penalty(StepOnly(2, 2), draw_inputs(3, 6, 2))
    with pytest.raises(hl.errors.UnsupportedModelError, match="cannot read"):
        penalty(nn.Linear(2, 2), draw_inputs(3, 6, 2))
    free = FlowPenalty(slopes="free", generator=source())
    with pytest.raises(hl.errors.ShapeError, match="returns every step"):
        free(lambda x: x.sum(1), draw_inputs(3, 6, 2), torch.tensor([2, 6, 6]))
    with pytest.raises(hl.errors.ParameterError, match="needs generator="):
        FlowPenalty(generator=None)
    for wrong, match in (
        ({"sequences": 0}, "sequences must be"),
        ({"slopes": "loose"}, "unknown slopes"),
        ({"norm": "l2"}, "unknown norm"),
        ({"norm": "frobenius", "outputs": 2}, "outputs= goes with"),
    ):
        with pytest.raises(hl.errors.HoplensError, match=match):
            FlowPenalty(**wrong, generator=source())


def free_and_held(core, inputs, lengths, readout):
    found = []
    for slopes in ("free", "held"):
        penalty = FlowPenalty(0.9, sequences=3, slopes=slopes, generator=source())
        found.append(float(penalty(core, inputs, lengths, readout=readout).detach()))
    return found


@pytest.mark.parametrize("core", cores(), ids=str)
def test_free_slopes_follow_any_network_that_held_ones_do(core):
    """Of sequences shorter than the padding too, where a backward direction must not begin in the padding."""
    inputs, lengths = draw_inputs(3, 6, 2).float(), torch.tensor([6, 2, 4])
    laid = inputs if core.batch_first else inputs.transpose(0, 1)
    free, held = free_and_held(core.eval(), laid, lengths, None)
    assert free == pytest.approx(held, rel=1e-5)
    packed = nn.utils.rnn.pack_padded_sequence(
        laid, lengths, batch_first=core.batch_first, enforce_sorted=False
    )
    assert free_and_held(core, packed, None, None) == pytest.approx([held, held], rel=1e-5)
    assert free_and_held(core, laid.double(), lengths.tolist(), None) == pytest.approx([held, held], rel=1e-5)


def test_a_model_of_the_last_steps_is_refused_with_either_slopes():
    model = hl.models.RecurrentModel(
        nn.RNN(2, 4, batch_first=True), nn.Linear(4, 1), hl.models.ModelInfo(window=3)
    )
    for slopes in ("held", "free"):
        with pytest.raises(hl.errors.UnsupportedModelError, match="last 3 steps"):
            FlowPenalty(slopes=slopes, generator=source())(model, draw_inputs(2, 6, 2))


def test_free_slopes_follow_a_module_in_evaluation_mode_and_leave_it_as_it_was():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(nn.functional.dropout(self.inner(x).tanh(), 0.5, self.training).mean(1))

    module, inputs = Averaged().train(), draw_inputs(3, 6, 2).float()
    state, seen = torch.get_rng_state(), module.norm.running_mean.clone()
    values = []
    for _ in range(2):
        value = FlowPenalty(sequences=3, slopes="free", generator=source())(module, inputs)
        value.backward()
        values.append(float(value.detach()))
    assert values[0] == values[1]
    assert module.training
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(seen, module.norm.running_mean)
    assert module.inner.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (lambda x: x.sum(1), {"lengths": torch.tensor([9, 6, 6])}),
        (lambda x: x.sum(1), {"readout": nn.Linear(2, 1)}),
        (lambda x: (x, x), {}),
        (lambda x: x.detach().sum(1), {}),
    ],
)
def test_what_autograd_cannot_follow_is_refused(model, options):
    with pytest.raises(hl.errors.HoplensError):
        FlowPenalty(slopes="free", generator=source())(model, draw_inputs(3, 6, 2), **options)


@pytest.mark.parametrize("slopes", ["held", "free"])
def test_frobenius_gradients_are_finite_where_nothing_flows(slopes):
    """Steps after the read-out of a shorter sequence carry nothing: the root of zero has no slope."""
    ensemble = random_ensemble("tanh", networks=2)
    inputs, lengths = draw_inputs(2, 5, 2), torch.tensor([5, 2])
    penalty = FlowPenalty(norm="frobenius", slopes=slopes, generator=source())
    for tensor in twin(ensemble, penalty, inputs, lengths, torch.ones(2, dtype=F64)):
        assert bool(torch.isfinite(tensor).all())
