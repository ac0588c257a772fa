"""The contract tests pass what is right and name what is broken: each check has an example it must catch."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hoplens as hl
from hoplens.studies.testing import (
    check_cell,
    check_measure,
    check_penalty,
    check_reader,
    check_recipe,
    check_task,
)
from hoplens.training.recipes import PathwaySpec, Term

F64 = torch.float64


def broken(match: str):
    return pytest.raises(hl.errors.ContractError, match=match)


# tasks


@dataclass(frozen=True)
class Recall:
    """The input of ``lag`` steps ago, with its ground truth, and one thing wrong with it."""

    wrong: str = ""
    form: str = "regression"
    n_inputs: int = 2
    n_outputs: int = 2
    length: int = 3
    is_linear: bool = True
    lag: int = 1
    signal_at: int = 1

    @property
    def target_maps(self) -> Tensor:
        maps = torch.zeros(self.length, 2, 2, dtype=F64)
        maps[0 if self.wrong == "maps" else self.lag] = torch.eye(2, dtype=F64)
        return maps.float() if self.wrong == "maps dtype" else maps

    @property
    def signal_hops(self) -> Tensor:
        hops = torch.zeros(self.length, dtype=torch.bool)
        hops[2 if self.wrong == "signal" else self.signal_at] = True
        return hops

    @property
    def mean_input(self) -> Tensor:
        return torch.full((self.length, self.n_inputs), 0.5 if self.wrong == "mean input" else 0.0, dtype=F64)

    def clean_targets(self, inputs: Tensor) -> Tensor:
        return inputs[..., self.length - 1 - self.lag, :]

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype):
        w = self.wrong
        source = torch.Generator().manual_seed(0) if w == "seed" else None if w == "global" else generator
        rows = n + 1 if w == "shape" else n
        inputs = torch.randn(
            rows, self.length, 2, generator=source, dtype=torch.float32 if w == "dtype" else dtype
        )
        if w == "numpy":
            np.random.random()  # noqa: NPY002
        if w == "random":
            random.random()
        targets = self.clean_targets(inputs)
        targets = {"biased": targets + 0.5, "scaled": 3 * targets, "dead": 0 * targets}.get(w, targets)
        if w == "nan":
            targets = targets.clone().fill_(torch.nan)
        if w == "targets":
            targets = targets[:, :1]
        if self.form == "sign":
            targets = targets if w == "sign" else (targets > (0.5 if w == "threshold" else 0)).to(dtype)
        return inputs if w == "pair" else (inputs, targets)


@pytest.mark.parametrize("form", ["regression", "sign"])
def test_a_task_that_keeps_the_contract_passes(form):
    check_task(Recall(form=form))
    check_task(
        hl.tasks.make("multiplication", form=form, target_noise=0.0 if form == "sign" else 0.1),
        standardised=False,
    )


class EveryStep(Recall):
    """Targets after every step; the maps are those of the last one, and nothing else is declared."""

    clean_targets = None  # type: ignore[assignment]

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype):
        inputs = torch.randn(n, self.length, 2, generator=generator, dtype=dtype)
        targets = torch.stack([inputs[:, max(0, t - self.lag)] for t in range(self.length)], dim=1)
        return inputs, targets


def test_a_task_with_a_target_after_every_step_is_checked_at_its_last_one():
    check_task(EveryStep())
    with broken("target_maps do not give the targets"):
        check_task(EveryStep(wrong="maps", signal_at=0))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("global", "sample used global random numbers"),
        ("numpy", "sample used global random numbers"),
        ("random", "sample used global random numbers"),
        ("seed", "same inputs for another seed"),
        ("shape", r"inputs must have shape \(1, 3, 2\), got \(2, 3, 2\)"),
        ("targets", r"targets must have shape \(1, 2\) or \(1, 3, 2\), got \(1, 1\)"),
        ("dtype", "dtype asked for, torch.float64, got torch.float32"),
        ("nan", "targets hold NaN"),
        ("pair", "pair"),
        ("biased", "targets must have mean 0: output . has mean 0.5"),
        ("scaled", "targets must have variance 1"),
        ("dead", "never changes"),
        ("maps", "target_maps do not give clean_targets"),
        ("maps dtype", r"float64 tensor of shape \(3, 2, 2\), got torch.float32"),
        ("signal", "signal_hops must say"),
        ("mean input", "mean_input is not the mean"),
    ],
)
def test_what_is_wrong_with_a_task_is_named(wrong, match):
    task = Recall(wrong=wrong, signal_at=0 if wrong == "maps" else 1)
    with broken(match):
        check_task(task)


def test_a_map_that_is_not_the_jacobian_is_named():
    with broken("not the Jacobian"):
        check_task(Recall(wrong="maps", signal_at=0, is_linear=False))


@pytest.mark.parametrize(
    ("wrong", "match"), [("sign", "must be 0 and 1"), ("threshold", "must be clean > 0")]
)
def test_what_is_wrong_with_signs_is_named(wrong, match):
    with broken(match):
        check_task(Recall(wrong=wrong, form="sign"))


def test_sizes_and_forms_are_checked():
    with broken("must have n_inputs"):
        check_task(object())
    with broken("length must be a whole number"):
        check_task(Recall(length=0))
    with broken("n_inputs must be a whole number"):
        check_task(Recall(n_inputs=2.0))
    with broken("form must be"):
        check_task(Recall(form="class"))


def test_a_task_that_cannot_travel_is_named():
    class Local(Recall):
        pass

    with broken("cannot be pickled"):
        check_task(Local())
    check_task(Local(), portable=False)
    with broken("not equal to its own copy"):
        check_task(ComparedByIdentity())
    with broken("cannot be pickled and hashed"):
        check_task(Unhashable())


class ComparedByIdentity(Recall):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Unhashable(Recall):
    __hash__ = None  # type: ignore[assignment]


def test_a_task_whose_training_breaks_is_named():
    class Huge(Recall):
        def sample(self, n, *, generator, dtype):
            inputs, targets = super().sample(n, generator=generator, dtype=dtype)
            return inputs, targets * (1e30 if dtype == torch.float32 else 1.0)

    with broken("loss that is not finite"):
        check_task(Huge(), portable=False)


# penalties


class Broken(hl.Penalty):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, net):
        return self.function(net)


def l2(net):
    return net.w_rec.square().sum((-2, -1))


def change(net):
    with torch.no_grad():
        net.w_rec.mul_(0.5)
    return l2(net)


class WrongGradients(hl.WeightPenalty):
    def gradients(self, net, factors):
        value, grads = super().gradients(net, factors)
        return value, (grads[0], None, grads[2])


class WrongValue(hl.WeightPenalty):
    def gradients(self, net, factors):
        value, grads = super().gradients(net, factors)
        return value + 1, grads


class Drift(hl.Penalty):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, net):
        self.calls += 1
        return self.calls * l2(net)


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return w.square().sum((-2, -1))

    @staticmethod
    def backward(ctx, grad):
        (w,) = ctx.saved_tensors
        return 3.0 * w * grad[..., None, None]


@pytest.mark.parametrize(
    ("penalty", "match"),
    [
        (nn.Linear(2, 2), "must be a hoplens.Penalty, got Linear"),
        (Broken(change), "changed the network"),
        (Broken(lambda net: l2(net).sum()), r"one number a network, shape \(1,\)"),
        (Broken(lambda net: 1.0), "one number a network"),
        (Broken(lambda net: l2(net) / 0), "not finite"),
        (Drift(), "differed the second time"),
        (Broken(lambda net: l2(net) + torch.rand(())), "differed the second time"),
        (Broken(lambda net: l2(net) * net.w_in.abs().amax()), "ensemble is not that of it alone"),
        (Broken(lambda net: net.w_rec[..., 0, 1]), "order of hidden units"),
        (Broken(lambda net: l2(net).detach()), "cut off from the weights"),
        (WrongGradients(), "gradients\\(\\) by w_rec"),
        (WrongValue(), "another value than forward"),
        (Broken(lambda net: Slope.apply(net.w_rec)), "not that of finite differences"),
        (Broken(lambda net: l2(net).sqrt()), "zero weights"),
        (Broken(lambda net: l2(net).double()), "float32 weights is torch.float64"),
        (Broken(lambda net: l2(net) * (2.0 if net.w_in.dtype == torch.float32 else 1.0)), "another one"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_what_is_wrong_with_a_penalty_is_named(penalty, match):
    state = torch.get_rng_state()
    with broken(match):
        check_penalty(penalty)
    torch.set_rng_state(state)


def test_a_penalty_that_draws_global_numbers_is_named():
    def draw(net):
        torch.rand(())
        return l2(net)

    with broken("global random numbers"):
        check_penalty(Broken(draw))


def test_the_order_of_units_may_matter_where_that_is_said():
    check_penalty(Broken(lambda net: net.w_rec[..., 0, 1].square()), permutable=False)


@pytest.mark.parametrize(
    "penalty",
    [
        hl.PathwayPenalty(None, 0.5, across="sum"),
        hl.PathwayPenalty(3, normalise=True),
        hl.PathwayPenalty(3, norm="frobenius", every=2),
        hl.PathwayPenalty(3, sample=1, generator=torch.Generator().manual_seed(0)),
        2 * hl.PathwayPenalty(3, across="sum") + hl.WeightPenalty("l2", ("in", "rec")),
    ],
    ids=str,
)
def test_own_penalties_keep_the_contract_and_their_mode(penalty):
    check_penalty(penalty)
    assert penalty.training


# dropout is for hl.train, which has tests of its own
FOR_TASKS = [make() for name, make in hl.recipes.BUILT_IN.items() if name != "dropout"]


@pytest.mark.parametrize("recipe", FOR_TASKS, ids=lambda r: r.name)
def test_own_recipes_keep_the_contract(recipe):
    check_recipe(recipe)


def test_what_is_wrong_with_a_recipe_is_named():
    with broken("expected a hoplens.Recipe, got Term"):
        check_recipe(Term(PathwaySpec()))
    with broken("cut off"):
        check_recipe(hl.Recipe("bad", (Term(lambda length: Broken(lambda net: l2(net).detach())),)))

    def small_is_lost(net):
        small = (net.w_rec.abs() < 0.09) & (net.w_rec != 0)
        return l2(net) * torch.where(small, torch.nan, 1.0).amax((-2, -1))

    with broken("diverged"):
        check_recipe(hl.Recipe("lost", (Term(lambda length: Broken(small_is_lost)),)))


# measures


def mass(net, task):
    return hl.hop_maps(net, task.length).values.abs().sum((-3, -2, -1))


def test_a_measure_that_keeps_the_contract_passes():
    check_measure(mass)
    check_measure(lambda net, task: hl.active_hops(hl.hop_maps(net, task.length)).sum((-2, -1)))
    check_measure(mass, Recall())


@pytest.mark.parametrize(
    ("measure", "match"),
    [
        (3, "a measure is a function"),
        (lambda net, task: 1.0, "one real number a network"),
        (lambda net, task: mass(net, task).sum(), r"shape \(3,\), got torch.float64 of shape \(\)"),
        (lambda net, task: mass(net, task).to(torch.complex64), "one real number"),
        (lambda net, task: mass(net, task) * torch.nan, "not finite"),
        (lambda net, task: net.w_rec[..., 0, 0], "order of hidden units"),
        (lambda net, task: mass(net, task) - mass(net, task).mean(), "of it alone"),
        (lambda net, task: change(net), "changed the network"),
    ],
    ids=range(8),
)
def test_what_is_wrong_with_a_measure_is_named(measure, match):
    with broken(match):
        check_measure(measure)


# cells and readers


class Leak(hl.Cell):
    def __init__(self, wrong=""):
        super().__init__(2, 3)
        self.wrong = wrong
        g = torch.Generator().manual_seed(0)
        self.w, self.u = torch.randn(3, 3, generator=g, dtype=F64), torch.randn(3, 2, generator=g, dtype=F64)

    def step(self, state, x):
        new = torch.tanh(state @ self.w.mT + x @ self.u.mT)
        if self.wrong == "shape":
            return new[..., :2]
        if self.wrong == "batch" and new.dim() > 1:
            new = new - new.mean(dim=0)
        if self.wrong == "random":
            new = new + torch.rand(())
        return new

    def emission(self):
        return torch.eye(3, dtype=F64)[: 3 if self.wrong == "emission" else 2]

    @property
    def n_outputs(self):
        return 2

    def emit(self, state):
        return state[..., 1:] if self.wrong == "emit" else super().emit(state)

    def raw(self):
        return (self.u, self.w) if self.wrong == "raw" else (self.w, self.u)

    def pull(self, saved, rows):
        by_state, by_x = super().pull(saved, rows)
        return (by_state.mT if self.wrong == "state" else by_state), (2 * by_x if self.wrong == "x" else by_x)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("shape", "must return the next state"),
        ("batch", "depends on the samples beside it"),
        ("random", "another state the second time"),
        ("emission", r"shape \(n_outputs, 3\)"),
        ("emit", "not state @ emission.mT"),
        ("raw", "raw must have shapes"),
        ("state", "Jacobian of step by the state"),
        ("x", "Jacobian of step by the input"),
    ],
)
def test_what_is_wrong_with_a_cell_is_named(wrong, match):
    check_cell(Leak(), dtype=F64)
    with broken(match):
        check_cell(Leak(wrong), dtype=F64)


def test_own_cells_keep_the_contract():
    g = torch.Generator().manual_seed(1)
    w, u = torch.randn(4, 4, generator=g, dtype=F64), torch.randn(4, 2, generator=g, dtype=F64)
    b = torch.randn(4, generator=g, dtype=F64)
    check_cell(hl.models.RnnCell(u, w, b, None), dtype=F64)
    check_cell(hl.models.RnnCell(u, w, None, None, leak=torch.tensor(0.3, dtype=F64)), dtype=F64)
    check_cell(hl.models.GruCell(u.repeat(3, 1), w.repeat(3, 1), b.repeat(3), b.repeat(3)), dtype=F64)
    check_cell(hl.models.LstmCell(u.repeat(4, 1), w.repeat(4, 1), b.repeat(4), None), dtype=F64)
    check_cell(
        hl.models.FunctionCell(lambda s, x: torch.sin(s) * x.sum(-1, keepdim=True), n_inputs=2, n_state=3)
    )
    with broken("expected a hoplens.Cell"):
        check_cell(nn.RNNCell(2, 3))


class Gate(nn.Module):
    """A unit of one's own whose reader has one thing wrong with it."""

    def __init__(self, wrong=""):
        super().__init__()
        self.wrong = wrong
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.drive = nn.Linear(5, 3).double()

    def step(self, state, x):
        return torch.tanh(self.drive(torch.cat([x, state], dim=-1)))

    def run(self, inputs):
        state = inputs.new_zeros(len(inputs), 3)
        for t in range(inputs.shape[1]):
            state = self.step(state, inputs[:, t])
        return state

    def to_hoplens(self):
        if self.wrong == "mode":
            self.eval()
        if self.wrong == "weights":
            self.drive.weight.data.mul_(1.1)
        if self.wrong == "attribute":
            self.seen = True
        if self.wrong == "random":
            torch.rand(())
        if self.wrong in ("detached", "sees"):
            weight = self.drive.weight.detach()
            return hl.Pathways(weight[:, :2], weight[:, 2:], torch.eye(3, dtype=F64))
        step = self.step if self.wrong != "other" else (lambda s, x: self.step(s, 2 * x))
        return hl.models.FunctionCell(step, n_inputs=2, n_state=3)


def test_a_reader_that_keeps_the_contract_passes():
    inputs = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    gate = Gate()
    check_reader(gate, torch.eye(3, dtype=F64), inputs=inputs, forward=gate.run)
    rnn, head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 1)
    check_reader(rnn, head, inputs=inputs.float(), forward=lambda x: head(rnn(x)[0][:, -1]))
    check_reader((np.ones((2, 1)), np.eye(2), np.ones((1, 2))))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("mode", "reading changed the model"),
        ("weights", "reading changed the model"),
        ("attribute", "reading changed the model"),
        ("random", "global random numbers"),
        ("detached", "no gradient flows"),
        ("other", "do not compute what the model runs"),
    ],
)
def test_what_is_wrong_with_a_reader_is_named(wrong, match):
    inputs = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    gate = Gate(wrong)
    head = None if wrong == "detached" else torch.eye(3, dtype=F64)  # a Pathways has its read-out
    with broken(match):
        check_reader(gate, head, inputs=inputs, forward=gate.run)
    if wrong == "other":
        check_reader(gate, torch.eye(3, dtype=F64))  # only running the model shows it
        with broken("needs inputs="):
            check_reader(gate, torch.eye(3, dtype=F64), forward=gate.run)
