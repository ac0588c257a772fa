"""The cost of a pathway penalty: fewer operations, little memory, unbiased savings, a printable plan."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from size import full
from torch import nn
from twins import assert_near, blocks_of, literal_penalty, one_by_one, random_network

import hoplens as hl
from hoplens.graph import chain as kernels
from hoplens.graph import fused
from hoplens.graph.chain import Chain, make_step
from hoplens.graph.fused import Doubling, pathway_size
from hoplens.graph.steps import DenseStep, csr
from hoplens.penalties import costs as plans

KINDS = [(across, norm) for across in ("hops", "sum") for norm in ("l1", "frobenius")]


def gradients(value, net):
    wanted = value * torch.linspace(1.0, 2.0, max(1, value.numel()), dtype=value.dtype).view(value.shape)
    return torch.autograd.grad(wanted.sum(), blocks_of(net), materialize_grads=True, allow_unused=True)


# exact variants


@pytest.mark.parametrize(("keep", "segment"), [(0, 0), (1 << 28, 0), (1 << 28, 1 << 25)])
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize(("across", "norm"), KINDS)
def test_segments_and_recomputation_change_nothing(across, norm, batch, keep, segment, monkeypatch):
    monkeypatch.setattr(kernels, "ADJOINT_ROWS", 6)
    monkeypatch.setattr(kernels, "KEEP_BYTES", keep)
    monkeypatch.setattr(kernels, "SEGMENT_BYTES", segment)
    net = random_network(3, hidden=5, batch=batch, requires_grad=True)
    own = hl.PathwayPenalty(11, 0.8, across=across, norm=norm)(net)
    twins = [literal_penalty(one, 0.8, 11, across, norm, False) for one in one_by_one(net)]
    wanted = torch.stack(twins).reshape(batch)
    assert_near(own, wanted)
    for got, twin in zip(gradients(own, net), gradients(wanted, net), strict=True):
        assert_near(got, twin)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2), (1, 1)])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
@pytest.mark.parametrize(("across", "norm"), KINDS)
def test_repeated_squaring_equals_one_hop_at_a_time(across, norm, length, inputs, outputs):
    net = random_network(3, hidden=5, inputs=inputs, outputs=outputs, requires_grad=True)
    one, other = (
        pathway_size(*blocks_of(net), length, damping=0.8, across=across, norm=norm, doubling=doubling)
        for doubling in (False, True)
    )
    assert_near(one, other)
    for got, twin in zip(gradients(one, net), gradients(other, net), strict=True):
        assert_near(got, twin)


def test_squaring_is_chosen_for_long_horizons_of_small_single_networks(monkeypatch):
    assert plans.use_doubling(100, 64, 8, 1, "cpu")
    assert not plans.use_doubling(100, 64, 8, 2, "cpu")
    assert not plans.use_doubling(100, 1024, 8, 1, "cpu")
    assert not plans.use_doubling(4, 8, 1, 1, "cpu")
    made = []
    monkeypatch.setattr(fused, "Doubling", lambda *a: made.append(1) or Doubling(*a))
    hl.PathwayPenalty(100)(random_network(hidden=16))
    hl.PathwayPenalty(100)(random_network(hidden=16, batch=(2,)))
    assert len(made) == 1


@pytest.mark.parametrize(("across", "norm"), KINDS)
def test_gradcheck_of_the_fused_penalty(across, norm):
    net = random_network(3, batch=(2,), requires_grad=True)
    penalty = hl.PathwayPenalty(4, 0.8, across=across, norm=norm)
    assert torch.autograd.gradcheck(lambda *blocks: penalty(hl.Pathways(*blocks)), blocks_of(net))


def test_damping_keeps_a_penalty_in_range_where_the_maps_are_not():
    net = random_network(4, hidden=6, radius=1.6).to(torch.float32)
    assert hl.hop_maps(net, 300).shift is not None
    value = hl.PathwayPenalty(300, 0.6)(net)
    assert_near(value.double(), hl.PathwayPenalty(300, 0.6)(net.to(torch.float64)), 1e-4 * float(value))


# memory


def saved_bytes(build):
    seen = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = build()
    node = value.grad_fn
    while node is not None and not hasattr(node, "chain"):
        node = node.next_functions[0][0]
    for run in node.chain.kept:
        seen[run.untyped_storage().data_ptr()] = run.untyped_storage().nbytes()
    return sum(seen.values())


@pytest.mark.parametrize("length", [25, 100, 400])
def test_the_backward_pass_keeps_thin_blocks_only(length, monkeypatch):
    hidden, thin, item = 64, 2, 4
    net = random_network(inputs=5, hidden=hidden, outputs=thin, requires_grad=True).to(torch.float32)
    monkeypatch.setattr(plans, "use_doubling", lambda *_: False)
    monkeypatch.setattr("hoplens.penalties.pathway.use_doubling", lambda *_: False)
    weights = item * (hidden * hidden + 7 * hidden)
    maps = item * length * (5 * thin + 1)
    block = item * thin * hidden
    everything = saved_bytes(lambda: hl.PathwayPenalty(length)(net))
    assert length * block <= everything <= weights + maps + length * block
    monkeypatch.setattr(kernels, "KEEP_BYTES", 0)
    monkeypatch.setattr(kernels, "SEGMENT_BYTES", 0)
    few = saved_bytes(lambda: hl.PathwayPenalty(length)(net))
    if length * block > item * hidden * hidden:  # else W_rec is the larger, and all blocks are kept
        assert few <= weights + maps + (math.isqrt(length) + 1) * block
    assert few <= everything


def test_checkpoints_hold_the_square_root_of_the_hops(monkeypatch):
    monkeypatch.setattr(kernels, "KEEP_BYTES", 0)
    monkeypatch.setattr(kernels, "SEGMENT_BYTES", 0)
    chain = Chain(make_step(*blocks_of(random_network(hidden=4))), 400)
    chain.forward(keep=True)
    assert len(chain.kept) == 20
    assert sum(block.numel() for block in chain.kept) == 20 * 2 * 4


PEAK_SCRIPT = """
import sys, torch
import hoplens as hl
from torch import nn

def peak():  # KiB; ru_maxrss would count the parent process
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

torch.set_num_threads(1)
rnn, out, penalty = nn.RNN(8, 256, batch_first=True), nn.Linear(256, 8), hl.PathwayPenalty(200)
optimiser = torch.optim.Adam([*rnn.parameters(), *out.parameters()])
start = peak()
for _ in range(2):
    optimiser.zero_grad()
    loss = out(rnn(torch.ones(64, 200, 8))[0][:, -1]).square().mean()
    if sys.argv[1] == "penalty":
        loss = loss + 1e-4 * penalty(hl.read(rnn, readout=out))
    loss.backward()
    optimiser.step()
print(peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@full
def test_a_training_step_stays_near_the_peak_of_nn_rnn():
    with_penalty, without = (
        int(subprocess.run([sys.executable, "-c", PEAK_SCRIPT, kind], capture_output=True, check=True).stdout)
        for kind in ("penalty", "none")
    )
    assert without > 20_000  # KiB: large enough to compare
    assert with_penalty < 1.5 * without


# unbiased savings


def test_every_mth_call_costs_something_and_the_mean_is_exact():
    net = random_network(2, batch=(3,), requires_grad=True)
    exact, saving = hl.PathwayPenalty(6), hl.PathwayPenalty(6, every=4)
    values = [saving(net) for _ in range(12)]
    assert_near(torch.stack(values).mean(dim=0), exact(net))
    assert [bool(v.any()) for v in values] == [True, False, False, False] * 3
    assert_near(values[4], 4 * exact(net))
    mean = [sum(parts) / 12 for parts in zip(*(gradients(v, net) for v in values), strict=True)]
    for got, twin in zip(mean, gradients(exact(net), net), strict=True):
        assert_near(got, twin)


def test_drawn_calls_are_unbiased_with_the_stated_variance():
    net = random_network(2)
    truth = float(hl.PathwayPenalty(6)(net))
    penalty = hl.PathwayPenalty(6, every=4, generator=torch.Generator().manual_seed(0))
    values = torch.stack([penalty(net) for _ in range(4000)])
    assert float(values.mean()) == pytest.approx(truth, rel=0.1)  # four standard errors
    assert float(values.var()) == pytest.approx(3 * truth**2, rel=0.15)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 7), (7, 5), (5, 5)])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("across", ["hops", "sum"])
def test_sampled_nodes_are_unbiased_with_the_stated_variance(across, skip, inputs, outputs):
    net = random_network(2, hidden=6, inputs=inputs, outputs=outputs, skip=skip, requires_grad=True)
    exact = hl.PathwayPenalty(6, across=across)
    source = torch.Generator().manual_seed(0)
    penalty = hl.PathwayPenalty(6, across=across, sample=2, generator=source)
    values = torch.stack([penalty(net).detach() for _ in range(600)])
    each = list(node_values(net, exact))
    variance = 25 * (1 - 2 / 5) * float(torch.stack(each).var()) / 2
    assert float(values.mean()) == pytest.approx(
        float(exact(net).detach()), abs=4 * math.sqrt(variance / 600)
    )
    assert float(values.var()) == pytest.approx(variance, rel=0.25)
    # all pairs of nodes occur; their mean is the exact value and gradient
    assert_near(sum(each), exact(net))


def node_values(net, penalty):
    """The penalty of each node of the smaller side alone."""
    w_in, w_rec, w_out = blocks_of(net)[:3]
    skip = net.w_skip
    if net.n_inputs < net.n_outputs:
        for i in range(net.n_inputs):
            yield penalty(
                hl.Pathways(w_in[:, [i]], w_rec, w_out, None if skip is None else skip[:, [i]])
            ).detach()
    else:
        for o in range(net.n_outputs):
            yield penalty(hl.Pathways(w_in, w_rec, w_out[[o]], None if skip is None else skip[[o]])).detach()


def test_sampled_gradients_average_to_the_exact_one():
    net = random_network(2, hidden=6, inputs=3, outputs=3, requires_grad=True)
    penalty = hl.PathwayPenalty(6, sample=1, generator=torch.Generator().manual_seed(1))
    exact = gradients(hl.PathwayPenalty(6)(net), net)[1]
    found = torch.stack([gradients(penalty(net), net)[1] for _ in range(900)])
    error = (found.mean(dim=0) - exact).abs()
    assert (error <= 5 * found.std(dim=0) / 30 + 1e-12).all()
    assert float(found.std(dim=0).max()) > 0


def test_savings_stop_outside_training_and_leave_the_global_generator_alone():
    net = random_network(2)
    exact = hl.PathwayPenalty(6)(net)
    penalty = hl.PathwayPenalty(6, every=3, sample=1, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    with torch.no_grad():
        assert_near(torch.stack([penalty(net) for _ in range(4)]), exact.expand(4))
    penalty.eval()
    assert_near(torch.stack([penalty(net) for _ in range(4)]), exact.expand(4))
    penalty.train()
    assert not all(torch.equal(penalty(net), exact) for _ in range(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_idle_call_can_go_back_by_itself():
    net = random_network(2, requires_grad=True)
    penalty = hl.PathwayPenalty(6, every=2)
    penalty(net)
    penalty(net).backward()
    assert not net.w_in.grad.any()


@pytest.mark.parametrize("trained", ["w_in", "w_rec", "w_out", "w_skip"])
def test_an_idle_call_belongs_to_whatever_is_trained(trained):
    blocks = dict(
        zip(("w_in", "w_rec", "w_out", "w_skip"), blocks_of(random_network(2, skip=True)), strict=True)
    )
    blocks[trained].requires_grad_()
    penalty = hl.PathwayPenalty(6, every=2)
    busy, idle = (penalty(hl.Pathways(**blocks)) for _ in range(2))
    assert busy.item() > 0 == idle.item()
    idle.backward()
    assert not blocks[trained].grad.any()


def test_an_idle_call_of_a_sparse_network_belongs_to_its_weights():
    values = torch.ones(2, dtype=torch.float64, requires_grad=True)
    index, ends = (torch.tensor([0, 1, 2]), torch.tensor([1, 0])), torch.eye(2, dtype=torch.float64)
    penalty = hl.PathwayPenalty(6, every=2)
    penalty(hl.Pathways(ends, csr(*index, values, (2, 2)), ends)).backward()
    before = values.grad.clone()
    penalty(hl.Pathways(ends, csr(*index, values, (2, 2)), ends)).backward()
    assert torch.equal(values.grad, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every"),
        ({"sample": 0, "generator": torch.Generator()}, "sample"),
        ({"sample": 2}, "generator="),
        ({"sample": 2, "norm": "frobenius", "generator": torch.Generator()}, 'norm="l1"'),
    ],
    ids=["every", "sample", "no generator", "norm"],
)
def test_options_of_savings_are_checked(options, message):
    with pytest.raises(hl.errors.ParameterError, match=message):
        hl.PathwayPenalty(5, **options)


def test_savings_are_shown():
    shown = repr(hl.PathwayPenalty(5, every=3, sample=2, generator=torch.Generator()))
    assert "every=3" in shown
    assert "sample=2" in shown


# plans


def test_a_plan_names_the_method_the_side_and_the_cost():
    net = random_network(inputs=8, hidden=200, outputs=3)
    plan = hl.PathwayPenalty(20, every=2).plan(net)
    assert (plan.method, plan.side, plan.terminals) == ("one hop at a time", "outputs", 3)
    assert plan.flops == 6 * 20 * 3 * 200**2
    assert plan.kept == 20 * 3 * 200 * 8
    for part in ("one hop at a time", "3 outputs", "20 hops", "one call in 2", "Mflop"):
        assert part in str(plan)
    assert hl.PathwayPenalty(100).plan(random_network(hidden=32)).method == "repeated squaring"
    assert hl.PathwayPenalty(None, across="sum").plan(net).method == "linear solve"
    sampled = hl.PathwayPenalty(20, sample=1, generator=torch.Generator()).plan(net)
    assert sampled.flops == plan.flops / 3
    ensemble = hl.PathwayPenalty(20).plan(random_network(hidden=20, inputs=2, outputs=3, batch=(4,)))
    assert (ensemble.side, ensemble.flops) == ("inputs", 6 * 20 * 2 * 4 * 400)


def test_planned_flops_are_the_flops_of_the_products(monkeypatch):
    flops = []

    def counted(name, rows):
        original = getattr(DenseStep, name)

        def call(self, *args):
            flops.append(2 * rows(*args) * 48**2)
            return original(self, *args)

        monkeypatch.setattr(DenseStep, name, call)

    for name in ("advance_all", "retreat_all"):
        counted(name, lambda views, *_: 2 * (len(views) - 1))
    counted("retreat", lambda adjoint, *_: adjoint.shape[1])
    counted("pair", lambda _, adjoints, *__: len(adjoints) * 2)
    net = random_network(inputs=4, hidden=48, outputs=2, requires_grad=True)
    penalty = hl.PathwayPenalty(7)
    penalty(net).backward()
    assert sum(flops) == penalty.plan(net).flops * 6 / 7  # seven maps are six hops apart


def test_a_users_loop_may_mix_savings_with_adam():
    torch_rnn, linear = nn.RNN(2, 8, batch_first=True), nn.Linear(8, 2)
    optimiser = torch.optim.Adam([*torch_rnn.parameters(), *linear.parameters()], lr=1e-2)
    penalty = hl.PathwayPenalty(5, every=2)
    first = None
    for _ in range(60):
        value = penalty(hl.read(torch_rnn, readout=linear))
        first = value.item() / 2 if first is None else first
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert hl.PathwayPenalty(5)(hl.read(torch_rnn, readout=linear)).item() < 0.7 * first
