"""The hand-written backpropagation against autograd through the plain forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from twins import assert_near

from hoplens.models.ensemble import Ensemble
from hoplens.training import bptt
from hoplens.training.bptt import AutogradRecurrence, make_recurrence
from hoplens.training.objective import Objective

PLAIN = ("tanh", "relu", "linear")

SHAPE = {"networks": 3, "inputs": 2, "hidden": 5, "outputs": 4, "length": 6, "batch": 7}


def problem(
    activation="tanh", form="regression", seed=0, dtype=torch.float64, leak=1.0, every_step=False, **sizes
):
    """An ensemble with weights of order one everywhere, inputs (L, E, I, B) and targets (R, E, O, B)."""
    e, i, h, o, length, batch = ({**SHAPE, **sizes}[key] for key in SHAPE)
    source = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)

    ensemble = Ensemble(draw(e, h + i + 1, h) * 0.6, draw(e, o, h), draw(e, o, 1), activation, leak)
    inputs, targets = draw(length, e, i, batch), draw(length if every_step else 1, e, o, batch)
    return ensemble, inputs, (targets > 0).to(dtype) if form == "sign" else targets


class Batches:
    """What an objective asks of a stream."""

    def __init__(self, size, form, every_step):
        self.size, self.form, self.every_step = size, form, every_step


def objective_of(ensemble, inputs, form="regression", every_step=False):
    return Objective(ensemble, Batches(inputs.shape[-1], form, every_step), [], length=len(inputs))


def run(ensemble, inputs, targets, form="regression", every_step=False):
    work = objective_of(ensemble, inputs, form, every_step)
    return work.run(inputs, targets, None, progress=0.0), work.grads


def autograd_twin(ensemble, inputs, targets, form="regression", every_step=False):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in ensemble.tensors]
    twin = Ensemble(*leaves, ensemble.cell, ensemble.leak)
    sequences = inputs.permute(1, 3, 0, 2)
    if every_step:
        outputs = twin.predict_steps(sequences).permute(2, 0, 3, 1)  # (L, E, O, B)
    else:
        outputs = twin.predict(sequences).mT[None]
    if form == "sign":
        cost = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    else:
        cost = (outputs - targets) ** 2
    losses = cost.mean(dim=(0, 2, 3))
    return losses.detach(), torch.autograd.grad(losses.sum(), leaves)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("form", ["regression", "sign"])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"length": 1},
        {"length": 2},
        {"batch": 1},
        {"networks": 1},
        {"hidden": 1, "inputs": 1, "outputs": 1},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_autograds(activation, form, sizes):
    given = problem(activation, form, **sizes)
    loss, grads = run(*given, form)
    wanted_loss, wanted = autograd_twin(*given, form)
    assert_near(loss, wanted_loss)
    for own, twin in zip(grads, wanted, strict=True):
        assert float(twin.abs().max()) > 0
        assert_near(own, twin)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("form", ["regression", "sign"])
@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize(("leak", "every_step"), [(0.3, False), (1.0, True), (0.3, True)])
def test_leaky_units_and_read_outs_at_every_step(activation, form, length, leak, every_step):
    given = problem(activation, form, leak=leak, every_step=every_step, length=length)
    loss, grads = run(*given, form, every_step)
    wanted_loss, wanted = autograd_twin(*given, form, every_step)
    assert_near(loss, wanted_loss)
    for own, twin in zip(grads, wanted, strict=True):
        assert float(twin.abs().max()) > 0
        assert_near(own, twin)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("sizes", [{}, {"hidden": 70, "batch": 3}], ids=str)
def test_large_weights_are_stored_the_other_way(activation, sizes, monkeypatch):
    given = problem(activation, leak=0.5, **sizes)
    loss, grads = run(*given)
    monkeypatch.setattr(bptt, "TURN_FROM", 1)
    turned_loss, turned = run(*given)
    assert_near(turned_loss, loss)
    for own, twin in zip(turned, grads, strict=True):
        assert_near(own, twin)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize(("leak", "every_step"), [(1.0, False), (0.4, True)])
def test_gradients_equal_finite_differences(activation, leak, every_step):
    ensemble, inputs, targets = problem(
        activation, networks=1, hidden=3, length=4, batch=3, leak=leak, every_step=every_step
    )
    _, grads = run(ensemble, inputs, targets, every_step=every_step)
    step = 1e-6
    for tensor, grad in zip(ensemble.tensors, grads, strict=True):
        slope = torch.empty_like(grad)
        for place in range(tensor.numel()):
            flat = tensor.view(-1)
            kept = float(flat[place])
            losses = []
            for value in (kept + step, kept - step):
                flat[place] = value
                losses.append(float(run(ensemble, inputs, targets, every_step=every_step)[0]))
            flat[place] = kept
            slope.view(-1)[place] = (losses[0] - losses[1]) / (2 * step)
        assert_near(grad, slope, 1e-7)


@pytest.mark.parametrize(("activation", "bound"), [("tanh", 3e-6), ("relu", 5e-7), ("linear", 5e-7)])
def test_single_precision_loses_few_digits(activation, bound):
    # tanh by way of the sigmoid costs some (measured here: 8e-7, autograd 2e-7): h = 2 s - 1 cancels
    ensemble, inputs, targets = problem(activation, hidden=32, length=20, batch=64)
    ensemble.weight.mul_(1.5 / 32**0.5)  # radius 0.9: a chaotic network would magnify any rounding
    _, exact = run(ensemble, inputs, targets)
    single = Ensemble(*(t.float() for t in ensemble.tensors), activation)
    for own, truth in zip(run(single, inputs.float(), targets.float())[1], exact, strict=True):
        assert own.dtype == torch.float32
        assert float((own.double() - truth).norm() / truth.norm()) < bound


@pytest.mark.parametrize("activation", PLAIN)
def test_a_workspace_can_be_used_again(activation):
    ensemble, inputs, targets = problem(activation)
    other = problem(activation, seed=1)
    work = objective_of(ensemble, inputs)
    work.run(*other[1:], None, progress=0.0)
    ensemble.weight.mul_(0.5)  # as an optimiser does between two steps
    loss = work.run(inputs, targets, None, progress=0.0)
    wanted_loss, wanted = autograd_twin(ensemble, inputs, targets)
    assert_near(loss, wanted_loss)
    for own, twin in zip(work.grads, wanted, strict=True):
        assert_near(own, twin)


@pytest.mark.parametrize("activation", PLAIN)
def test_weights_inputs_and_targets_are_left_alone(activation):
    ensemble, inputs, targets = problem(activation)
    given = (*ensemble.tensors, inputs, targets)
    before = [tensor.clone() for tensor in given]
    run(ensemble, inputs, targets)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_cells_without_a_step_by_hand_go_by_autograd(monkeypatch):
    ensemble = Ensemble(*(torch.randn(2, *shape) for shape in ((8, 20), (1, 5), (1, 1))), "gru")
    assert not isinstance(make_recurrence(ensemble, 3, 4), AutogradRecurrence)
    monkeypatch.setattr(type(ensemble.kernel), "fused", False)
    assert isinstance(make_recurrence(ensemble, 3, 4), AutogradRecurrence)


def test_networks_do_not_feel_each_other():
    ensemble, inputs, targets = problem()
    loss, grads = run(ensemble, inputs, targets)
    one = Ensemble(*(tensor[1:2] for tensor in ensemble.tensors))
    alone, own = run(one, inputs[:, 1:2], targets[:, 1:2])
    assert_near(loss[1:2], alone)
    for whole, part in zip(grads, own, strict=True):
        assert_near(whole[1:2], part)
