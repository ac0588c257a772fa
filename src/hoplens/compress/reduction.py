"""Recurrent models with fewer hidden units, guided by Gramians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hoplens.compress.gramians import (
    Gramians,
    balance,
    check_single,
    choose_units,
    data_gramians,
    linear_gramians,
    root,
)
from hoplens.compress.made import CompressedModel
from hoplens.compress.tuning import fine_tune, score
from hoplens.errors import ParameterError, UnsupportedModelError, check_choice, check_count
from hoplens.models.cells import LeakyRNN
from hoplens.models.readers.copies import as_model
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel, build_model, describe_model
from hoplens.models.rollout import as_batch, run
from hoplens.models.stack import Stack
from hoplens.models.tensors import as_sequences, check_finite

BASES = ("best", "units", "states")
SIZES = (1.0, 0.5, 0.25, 0.1)  # standard deviations of balanced states that are tried: small ones stay linear
RIDGE = 1e-6  # of the mean variance, when units are rebuilt from others


@dataclass(frozen=True, eq=False, repr=False)
class Reduced(CompressedModel):
    """A recurrent model with fewer hidden units.

    Attributes
    ----------
    model : RecurrentModel
    basis : {"units", "states"}
        What the hidden units of ``model`` are: units of the old one, or its balanced states.
    values : Tensor, shape (H,)
        Hankel singular values, largest first.
    bound : float
        Twice the sum of the discarded Hankel singular values: a bound for the linearised network with white
        inputs over all time, an indication for the model itself. Infinite with a horizon or data, for
        which none is known.
    kept : tuple of int
        Old units that are the new ones; empty unless ``basis`` is "units".
    scores : dict of str to float
        With targets: "before", "reduced" and "fine-tuned", as in `Quantised`. Without: the share of the
        outputs' variance that is kept, if there are inputs.
    """

    basis: str
    values: Tensor
    bound: float
    kept: tuple[int, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)


def reduce(
    model: Any,
    units: int,
    *,
    readout: Any = None,
    basis: str = "best",
    inputs: Tensor | None = None,
    targets: Tensor | None = None,
    horizon: int | None = None,
    steps: int = 0,
    lr: float = 1e-3,
    batch: int = 64,
    seed: int = 0,
) -> Reduced:
    """Make the hidden layer smaller, guided by what inputs reach and outputs see.

    A non-linear unit is not a direction in state space, so balanced states can be made units in two ways:

    * ``"units"``: real units stay, each with its own non-linearity; those are taken that, step by step,
      leave least of the Gramian-weighted state unexplained, and the others' contributions to every product
      are rebuilt linearly from them. For every kind of core.
    * ``"states"``: the balanced states become the units, ``W -> T^-1 S W T`` truncated, S the mean slopes,
      scaled small enough to work where tanh is nearly linear. Plain and leaky cores of tanh units only.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
        One layer that runs forward.
    units : int
        Hidden units kept.
    readout : nn.Linear, optional
        After a bare core.
    basis : {"best", "units", "states"}, default "best"
        "best" tries both on the inputs and takes the one that changes the outputs less; "units" where there
        are no inputs or the core allows no states.
    inputs : Tensor, shape (B, L, I), optional
        Gramians along these sequences, with the exact slopes there; also training data. Without: those of
        the network linearised at rest.
    targets : Tensor, optional
        As in `quantise`.
    horizon : int, optional
        Time steps of the linear Gramians; None: all.
    steps : int, default 0
        Steps of fine-tuning.
    lr, batch, seed
        Of the fine-tuning.

    Returns
    -------
    Reduced

    Raises
    ------
    UnsupportedModelError
        For more layers or directions, and for ``basis="states"`` of a gated core.
    ParameterError
        For more units than there are, or a fine-tuning without inputs.
    UnstableError
        Without inputs and horizon, if the linearised network is unstable.
    """
    own = as_model(model, readout, needs="weight_hh").float()
    check_choice("basis", basis, BASES)
    check_single(own)
    for name, value in own.state_dict().items():
        check_finite(name, value)
    count = check_count("units", units)
    if count > own.core.hidden_size:
        raise ParameterError(
            f"units must be at most {own.core.hidden_size}, those that there are, got {count}"
        )
    if inputs is None and (targets is not None or check_count("steps", steps, least=0)):
        raise ParameterError("targets and fine-tuning need inputs=")
    inputs = None if inputs is None else as_sequences(inputs, own.n_inputs).float()
    gramians = linear_gramians(own, horizon) if inputs is None else data_gramians(own, inputs)
    values = torch.linalg.svdvals(root(gramians.show).mT @ root(gramians.reach))
    kept = choose_units(gramians, count)
    ways: dict[str, RecurrentModel] = {}
    if basis != "states":
        ways["units"] = _keep_units(own, gramians, kept)
    core: Any = own.core
    mixes = isinstance(core, nn.RNN | LeakyRNN) and core.nonlinearity == "tanh"
    if basis == "states" or (basis == "best" and mixes and inputs is not None):
        ways["states"] = _keep_states(own, gramians, count, inputs)
    if inputs is not None:
        errors = {name: _error(own, small, inputs) for name, small in ways.items()}
        basis = min(errors, key=errors.__getitem__)
    else:
        (basis,) = ways
    small, kept = ways[basis], kept if basis == "units" else ()
    proven = inputs is None and horizon is None
    train = partial(fine_tune, steps=steps, lr=lr, batch=batch, seed=seed) if steps else None
    scores = _finish(own, small, inputs, targets, train)
    return Reduced(
        small, basis, values, float(2 * values[count:].sum()) if proven else math.inf, kept, scores
    )


def _keep_units(model: RecurrentModel, gramians: Gramians, kept: tuple[int, ...]) -> RecurrentModel:
    """Return the model of some units; the others are rebuilt as ``m + V (h_kept - m_kept)``."""
    units = list(kept)
    reach, mean = gramians.reach, gramians.mean
    own = reach[units][:, units]
    ridge = RIDGE * own.diagonal().mean().clamp_min(1e-300)
    rebuilt = torch.linalg.solve(
        own + ridge * torch.eye(len(units), dtype=own.dtype), reach[units]
    ).mT  # (H, r)
    rebuilt[units] = torch.eye(len(units), dtype=own.dtype)
    offset = mean - rebuilt @ mean[units]
    core: Any = model.core
    hidden = core.hidden_size
    gates = core.weight_hh_l0.shape[0] // hidden
    rows = torch.cat([torch.tensor(units) + gate * hidden for gate in range(gates)])
    recurrent = core.weight_hh_l0.detach().double()
    blocks = {
        "weight_ih_l0": core.weight_ih_l0.detach()[rows],
        "weight_hh_l0": recurrent[rows] @ rebuilt,
    }
    constant = (recurrent @ offset)[rows]
    if getattr(core, "bias", True) is False:
        blocks |= {"bias_ih_l0": torch.zeros_like(constant), "bias_hh_l0": constant}
    else:
        blocks["bias_ih_l0"] = core.bias_ih_l0.detach()[rows]
        blocks["bias_hh_l0"] = core.bias_hh_l0.detach()[rows] + constant
    return _assemble(model, blocks, model.readout.weight.detach().double() @ rebuilt, offset)


def _keep_states(
    model: RecurrentModel, gramians: Gramians, count: int, inputs: Tensor | None
) -> RecurrentModel:
    core: Any = model.core
    if not isinstance(core, nn.RNN | LeakyRNN):
        raise UnsupportedModelError(
            f'basis="states" mixes units, but the gates of an nn.{type(core).__name__} act on each; use '
            'basis="units"'
        )
    if core.nonlinearity != "tanh":
        raise UnsupportedModelError(
            'basis="states" needs units that are nearly linear around 0, which relu is not; use basis="units"'
        )
    left, right, _ = balance(gramians.reach, gramians.show, count)
    spread = (left @ gramians.reach @ left.mT).diagonal().sqrt()  # of the balanced states
    at = _working_point(model, inputs)
    found: list[tuple[float, int, RecurrentModel]] = []
    for size in SIZES if inputs is not None else SIZES[-1:]:
        scale = size / spread
        small = _with_states(model, at, scale[:, None] * left, right / scale)
        if inputs is None:
            return small
        found.append((_error(model, small, inputs), len(found), small))
    return min(found)[2]


class _Point(NamedTuple):
    """Means of states before and after a step, of activations and inputs, and mean slopes, float64."""

    before: Tensor
    state: Tensor
    activation: Tensor
    x: Tensor
    slope: Tensor


def _working_point(model: RecurrentModel, inputs: Tensor | None) -> _Point:
    """Return the point that a network is linearised at: the means along data, or rest with slopes 1."""
    core: Any = model.core
    if inputs is None:
        rest = torch.zeros(core.hidden_size, dtype=torch.float64)
        bias = getattr(core, "bias", True) is not False
        drive = (core.bias_ih_l0 + core.bias_hh_l0).detach().double() if bias else rest
        return _Point(rest, rest, drive, rest.new_zeros(core.input_size), torch.ones_like(rest))
    stack = to_stack(core)
    assert isinstance(stack, Stack)
    stack = stack.to(torch.float64)
    batch = as_batch(stack, inputs)
    with torch.no_grad():
        trace = run(stack, batch)
        before = trace.points[0][0]
        leak = getattr(core, "leak", 1.0)
        new = (trace.shown - (1 - leak) * before) / leak
        parts = (before, trace.shown, new, batch.inputs, 1 - new.square())
        means = (part.flatten(0, 1).mean(0) for part in parts)
        return _Point(*means)


def _with_states(model: RecurrentModel, at: _Point, left: Tensor, right: Tensor) -> RecurrentModel:
    """Return the model whose units are ``left h``, linearised around the working point."""
    core: Any = model.core
    slopes = left * at.slope
    w_hh, w_ih = (w.detach().double() for w in (core.weight_hh_l0, core.weight_ih_l0))
    recurrent = slopes @ w_hh @ right
    offset = at.state - right @ (left @ at.state)  # what the kept states do not rebuild of the mean
    # left f(z) around the mean of z, with h = right g + offset
    constant = left @ at.activation + slopes @ (w_hh @ (offset - at.before) - w_ih @ at.x)
    blocks = {
        "weight_ih_l0": slopes @ w_ih,
        "weight_hh_l0": recurrent,
        "bias_ih_l0": constant,
        "bias_hh_l0": torch.zeros_like(constant),
    }
    read = model.readout.weight.detach().double() @ right
    return _assemble(model, blocks, read, offset)


def _error(model: RecurrentModel, other: RecurrentModel, inputs: Tensor) -> float:
    with torch.no_grad():
        error = float((model(inputs.float()) - other(inputs.float())).square().mean())
    return error if math.isfinite(error) else math.inf


def _assemble(
    model: RecurrentModel, blocks: dict[str, Tensor], read: Tensor, offset: Tensor
) -> RecurrentModel:
    """Return a smaller model of the same kind; ``offset`` (H,) is a constant part of the old states.

    It has biases even where the old one had none, as what goes leaves a constant behind.
    """
    sizes = {"hidden_size": blocks["weight_hh_l0"].shape[1], "bias": True, "readout_bias": True}
    result = build_model({**describe_model(model), **sizes}, torch.float32).eval()
    state = {f"core.{name}": block for name, block in blocks.items()}
    constant = model.readout.weight.detach().double() @ offset
    state["readout.weight"] = read
    state["readout.bias"] = constant if model.readout.bias is None else model.readout.bias.detach() + constant
    result.load_state_dict({name: block.to(torch.float32) for name, block in state.items()})
    return result


def _finish(
    model: RecurrentModel,
    small: RecurrentModel,
    inputs: Tensor | None,
    targets: Tensor | None,
    train: Callable[..., None] | None,
) -> dict[str, float]:
    """Fine-tune in place and return the scores; without inputs there are none."""
    if inputs is None:
        return {}
    with torch.no_grad():
        wanted = model(inputs) if targets is None else targets

    def judge(which: RecurrentModel) -> float:
        with torch.no_grad():
            return score(which(inputs), wanted)

    scores = {"before": judge(model), "reduced": judge(small)}
    if train is not None:
        train(small, list(small.parameters()), inputs, wanted)
        scores["fine-tuned"] = judge(small)
    return scores
