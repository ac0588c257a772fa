"""Inside a training step nothing waits for the device, and reading a plain network costs nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils._python_dispatch import TorchDispatchMode
from twins import random_network

import hoplens as hl
from hoplens.training.settings import Network, Settings
from hoplens.training.trainer import Trainer

# On a GPU each of these copies a number to the host and waits for all work queued before it.
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
    "item",
    "_linalg_check_errors",
    "repeat_interleave",
)


class Watch(TorchDispatchMode):
    """Writes down every tensor operation, those of the backward pass too."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.append(name)
        if name == "index" and any(getattr(i, "dtype", None) == torch.bool for i in args[1]):
            self.seen.append("nonzero")  # an index by a mask counts its entries first
        return func(*args, **(kwargs or {}))

    @property
    def waits(self):
        return [name for name in self.seen if name.strip("_").startswith(tuple(w.strip("_") for w in WAITS))]


def modules(hidden=12, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.RNN(3, hidden, batch_first=True, **options), nn.Linear(hidden, 2)


def training_step(penalty, hidden=12):
    rnn, out = modules(hidden)
    inputs = torch.ones(4, 9, 3)

    def step():
        loss = out(rnn(inputs)[0][:, -1]).square().mean() + 1e-3 * penalty(hl.read(rnn, readout=out))
        loss.backward()

    return step


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: float(x.sum()),
        lambda x: torch.equal(x, x),
        torch.linalg.inv,
    ],
    ids=["item", "bool", "mask", "nonzero", "float", "equal", "checked solve"],
)
def test_the_watch_sees_what_waits(wait):
    with Watch() as watch:
        wait(torch.eye(3))
    assert watch.waits


@pytest.mark.parametrize("horizon", [9, 100])
@pytest.mark.parametrize("hidden", [12, 64])
@pytest.mark.parametrize(
    "options",
    [{}, {"across": "sum"}, {"norm": "frobenius"}, {"every": 2}, {"sample": 1}],
    ids=str,
)
def test_no_step_with_a_penalty_waits_for_the_device(options, hidden, horizon):
    source = torch.Generator().manual_seed(0) if "sample" in options else None
    step = training_step(hl.PathwayPenalty(horizon, generator=source, **options), hidden)
    with Watch() as watch:
        for _ in range(2):  # every=2: one call that works and an idle one
            step()
    assert "bmm" in watch.seen or "mm" in watch.seen
    assert watch.waits == []


def test_a_sum_of_penalties_and_an_ensemble_do_not_wait_either():
    net = random_network(2, batch=(3,), requires_grad=True)
    penalty = hl.PathwayPenalty(9) + 0.1 * hl.WeightPenalty("l1")
    schedule = hl.schedules.switch(
        hl.PathwayPenalty(9, across="sum"), hl.PathwayPenalty(9), at=0.5, ramp=0.25
    )
    with Watch() as watch:
        (penalty(net) + schedule(net, 0.6)).sum().backward()
        hl.PathwayPenalty(9).gradients(net.detach(), torch.ones(3, dtype=torch.float64))
    assert watch.waits == []


# reading


@pytest.mark.parametrize("kind", ["RNN", "relu RNN", "RNN without biases", "RNNCell", "no read-out"])
def test_a_plain_network_is_read_without_a_single_tensor_operation(kind):
    rnn, out = modules()
    if kind == "relu RNN":
        rnn, _ = modules(nonlinearity="relu")
    if kind == "RNNCell":
        rnn = nn.RNNCell(3, 12)
    if kind == "RNN without biases":
        rnn, _ = modules(bias=False)
    with Watch() as watch:
        net = hl.read(rnn, readout=None if kind == "no read-out" else out)
    # a bias that is missing is a row of zeros, a read-out that is missing the identity
    assert set(watch.seen) <= {
        "RNN without biases": {"new_zeros"},
        "no read-out": {"eye"},
    }.get(kind, set())
    assert net.hidden_names[:2] == ("h0", "h1")


def test_a_plain_network_reads_as_its_weights_named_by_default():
    rnn, out = modules()
    net, again = hl.read(rnn, readout=out), hl.read(rnn, readout=out)
    assert (net.w_in, net.w_rec, net.w_out) == (rnn.weight_ih_l0, rnn.weight_hh_l0, out.weight)
    assert net.hidden_names == tuple(f"h{j}" for j in range(12))
    assert net.input_names == ("x0", "x1", "x2")
    assert net.output_names == ("y0", "y1")
    assert net.hidden_modules is net.input_modules is net.output_modules is net.layers is None
    assert net.provenance == "raw weights of nn.RNN (tanh)"
    assert again.hidden_names is net.hidden_names  # made once, not once a step
    assert net.detach().hidden_names is net.hidden_names
    assert hl.read(nn.RNNCell(3, 12)).provenance == "raw weights of nn.RNNCell"
    hl.PathwayPenalty(5)(net).backward()
    assert all(w.grad.any() for w in (rnn.weight_ih_l0, rnn.weight_hh_l0, out.weight))


def test_names_of_a_cell_of_ones_own_are_kept():
    class Named(hl.Cell):
        unit_names = ("v0", "v1", "w0")

        def step(self, state, x):
            return state + x

    net = hl.read(Named(3, 3))
    assert net.hidden_names == ("v0", "v1", "w0")
    assert net.hidden_modules == ("v", "v", "w")


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize("change", ["mask", "parametrisation", "leak"])
def test_what_is_not_plain_is_still_read_as_it_acts(change):
    rnn, out = modules()
    plain = copy.deepcopy(rnn)
    if change == "mask":
        prune.random_unstructured(rnn, "weight_hh_l0", 0.5)
        wanted = plain.weight_hh_l0 * rnn.weight_hh_l0_mask
    elif change == "parametrisation":
        parametrize.register_parametrization(rnn, "weight_hh_l0", Twice())
        wanted = 2 * plain.weight_hh_l0
    else:
        wanted = 0.75 * torch.eye(12) + 0.25 * plain.weight_hh_l0
    net = hl.read(rnn, readout=out, **({"dt": 0.25} if change == "leak" else {}))
    torch.testing.assert_close(net.w_rec, wanted)


# training


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_no_training_step_of_an_ensemble_waits_for_the_device(activation):
    task = hl.tasks.make("subtraction", signal="sparse", lag=2, modules=2, module_size=2, length=4)
    recipes = (hl.recipes.l1(), hl.recipes.paper(), hl.recipes.recommended().without_pruning(name="hops"))
    networks = [Network(recipe, 1e-3, seed) for recipe in recipes for seed in (0, 1)]
    trainer = Trainer(task, networks, Settings(hidden=6, steps=4, batch=8, cell=activation))
    batches = [trainer.data.batch(step) for step in range(3)]
    before = trainer.ensemble.weight.clone()
    with Watch() as watch:
        for step, batch in enumerate(batches):
            trainer.step(step, *batch)
    assert watch.waits == []
    assert not torch.equal(trainer.ensemble.weight, before)
