"""What a penalty acts on: the graph, the weights or the data, and that nobody mistakes one for another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hoplens as hl
from hoplens.training.recipes import Recipe, Term

CELLS = ("tanh", "leaky", "gru", "lstm")
F64 = torch.float64


class OwnL1(hl.Penalty):
    """The L1 norm of weights, by a user; gradients come from autograd."""

    acts_on = "weights"

    def size(self, w_in: Tensor, w_rec: Tensor, w_out: Tensor) -> Tensor:
        return sum(w.abs().sum(dim=(-2, -1)) for w in (w_in, w_rec, w_out))


class OnGraph(hl.Penalty):
    acts_on = "graph"

    def forward(self, net: hl.Pathways) -> Tensor:
        return net.w_in.abs().sum(dim=(-2, -1)) + net.w_rec.abs().sum(dim=(-2, -1))


class Unsaid(hl.Penalty):
    def forward(self, net: hl.Pathways) -> Tensor:
        return net.w_rec.abs().sum(dim=(-2, -1))


class AlongOwn(hl.Penalty):
    acts_on = "data"


def recipe(penalty: type[hl.Penalty]) -> Recipe:
    return Recipe(penalty.__name__, (Term(lambda *_, **__: penalty()),))


def small_data() -> hl.data.SequenceData:
    draw = torch.Generator().manual_seed(5)
    return hl.data.from_sequences(
        [torch.randn(4, 2, generator=draw).numpy() for _ in range(40)],
        [n % 2 for n in range(40)],
        form="class",
    )


def trained(cell: str, *recipes: Recipe) -> Tensor:
    """Return the input weights of one network a recipe."""
    result = hl.train(
        small_data(), recipes, cell=cell, hidden=3, steps=5, batch=8, strengths=[0.1], dtype=F64
    )
    return result.ensemble.weight


@pytest.mark.parametrize("cell", CELLS)
def test_an_own_penalty_on_weights_acts_on_the_weights_of_every_cell(cell: str) -> None:
    own, built_in, none = trained(cell, recipe(OwnL1), hl.recipes.l1(), hl.recipes.none())
    torch.testing.assert_close(own, built_in, rtol=1e-12, atol=1e-12)
    assert float((own - none).abs().max()) > 1e-4


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.4])
def test_tasks_train_it_likewise_leaky_or_not(eager: bool, leak: float) -> None:
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    options = {"hidden": 3, "steps": 5, "batch": 8, "strengths": [0.1], "dtype": F64}
    run = hl.train(task, [recipe(OwnL1), hl.recipes.l1()], leak=leak, eager=eager, **options)
    own, built_in = run.ensemble.weight
    torch.testing.assert_close(own, built_in, rtol=1e-12, atol=1e-12)


def test_an_l1_penalty_on_a_leaky_network_is_that_of_its_weights() -> None:
    """The self-loop that the leak makes is no weight: L1 must not push it."""
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    steps = {}
    for method in (hl.recipes.l1(), hl.recipes.none()):
        run = hl.train(
            task, method, leak=0.2, hidden=3, steps=1, lr=1e-6, clip=1e9, strengths=[1e4], dtype=F64
        )
        steps[method.name] = run.ensemble
    start = hl.train(task, hl.recipes.none(), leak=0.2, hidden=3, steps=1, lr=1e-300, dtype=F64).ensemble
    moved = (steps["L1"].weight - start.weight)[0, :-1]  # biases are not penalised
    # Adam's first step is lr times the sign of the gradient, and that is the sign of the weight
    assert torch.equal(moved.sign(), -start.weight[0, :-1].sign())


@pytest.mark.parametrize("cell", ["leaky", "gru", "lstm"])
def test_a_penalty_that_does_not_say_what_it_acts_on_is_refused_where_that_matters(cell: str) -> None:
    with pytest.raises(hl.errors.UnsupportedModelError, match=r'Unsaid does not say.*acts_on = "graph"'):
        trained(cell, recipe(Unsaid))
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    with pytest.raises(hl.errors.UnsupportedModelError, match="a leaky unit"):
        hl.train(task, recipe(Unsaid), leak=0.5, hidden=3, steps=1)
    assert trained("tanh", recipe(Unsaid)).shape[0] == 1


@pytest.mark.parametrize("cell", CELLS)
def test_a_penalty_on_the_graph_acts_on_the_linearised_cell(cell: str) -> None:
    on_graph, none = trained(cell, recipe(OnGraph), hl.recipes.none())
    assert float((on_graph - none).abs().max()) > 1e-4


def test_penalties_along_data_are_refused_where_nobody_runs_them() -> None:
    with pytest.raises(hl.errors.UnsupportedModelError, match="got AlongOwn"):
        trained("tanh", recipe(AlongOwn))
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    with pytest.raises(hl.errors.UnsupportedModelError, match="along data"):
        hl.train(task, recipe(AlongOwn), hidden=3, steps=1)


def test_sums_of_graph_and_data_terms_take_a_model_and_its_data() -> None:
    torch.manual_seed(0)
    rnn, linear = nn.RNN(2, 4, batch_first=True), nn.Linear(4, 2)
    model, x = hl.RecurrentModel(rnn, linear).double(), torch.randn(3, 5, 2, dtype=F64)

    def flow() -> hl.FlowPenalty:
        return hl.FlowPenalty(sequences=2, generator=torch.Generator().manual_seed(1))

    hops = hl.PathwayPenalty(5)
    expected = 0.5 * flow()(model, x) + 2.0 * hops(hl.read(rnn, readout=linear))
    for total in (0.5 * flow() + 2.0 * hops, 2.0 * hops + 0.5 * flow()):
        torch.testing.assert_close(total(model, x), expected)
        total(model, x).backward()
        assert all(p.grad is not None for p in (rnn.weight_hh_l0, linear.weight))
    scheduled = hl.schedules.switch(hops, flow(), at=0.5)
    torch.testing.assert_close(scheduled(model, 0.9, inputs=x), flow()(model, x))
    torch.testing.assert_close(scheduled(model, 0.1, inputs=x), hops(hl.read(rnn, readout=linear)))


def test_sums_and_schedules_say_what_they_lack() -> None:
    torch.manual_seed(0)
    net = hl.read(nn.RNN(2, 4), nn.Linear(4, 2))
    flow = hl.FlowPenalty(generator=torch.Generator().manual_seed(1))
    with pytest.raises(hl.errors.UnsupportedModelError, match=r"FlowPenalty follows a model.*penalty\(model"):
        (flow + hl.WeightPenalty())(net)
    with pytest.raises(hl.errors.ParameterError, match=r"penalty\(net, step / steps\)"):
        hl.schedules.switch(hl.WeightPenalty(), hl.PathwayPenalty(3), at=0.5)(net)
    with pytest.raises(hl.errors.ParameterError, match="progress"):
        hl.schedules.switch(hl.WeightPenalty(), hl.PathwayPenalty(3), at=0.5)(net, 12)
    with pytest.raises(hl.errors.UnsupportedModelError, match="must implement forward"):
        hl.Penalty()(net)
