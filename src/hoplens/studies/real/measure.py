"""What the study on real sequences measures on every trained network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from hoplens.analysis.fidelity import fidelity
from hoplens.analysis.hops import hop_maps
from hoplens.analysis.measures import active_hops
from hoplens.analysis.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.data import SequenceData, closed_loop_return
from hoplens.errors import ParameterError
from hoplens.graph.pathways import Pathways
from hoplens.models.cells import LeakyRNN
from hoplens.models.ensemble import Ensemble
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.studies.measures import MEASURES, apply_measures
from hoplens.training.result import TrainingResult

if TYPE_CHECKING:
    import pandas as pd

PRUNED = (50, 70, 90)  # percent of the recurrent weights removed, smallest first, without training again
FOLLOWED_SEQUENCES = 8  # of the test split, along which trajectories are followed
SATURATED = 0.9  # a unit this close to its bounds hands on little of what changes
BITS = 8
CONTROL = ("cartpole", "pendulum")
EPISODES = 32


def measure_validation(result: TrainingResult) -> pd.DataFrame:
    """Return what strengths are chosen by: error whole and with 90 % removed, and active hops."""
    frame = result.metrics[["method", "strength", "seed", "validation_error", "validation_loss"]].copy()
    for level in (70, 90):
        found = result.evaluate("validation", prune(result.ensemble, level / 100))
        frame[f"validation_error_{level}"] = numbers(found["error"], result)
    frame["active_hops"] = numbers(count_hops(result), result)
    frame["diverged_at"] = result.metrics["diverged_at"]
    return frame


def measure_report(result: TrainingResult, followed: tuple[int, ...]) -> pd.DataFrame:
    """Return one row a network.

    Columns: method, strength, seed, test_error, test_loss and accuracy or f1; test_error_50, _70, _90 with so
    much of the recurrent weights removed; test_error_int8 with weights rounded to 8 bits; score
    in closed loop (control; also score_90, pruned); active_hops of the weights-only maps; nonzero; saturated
    (share of states near their bounds) and gate (mean of a GRU's update or an LSTM's forget gate); and of
    networks whose seed is in ``followed``, along 8 test sequences: explained (share of the flow that the
    weights-only view predicts), correlation, flow_hops (active hops of the flow), reach and flow_reach (mean
    lag of the weights-only maps and of the flow, weighted by size).
    """
    kept = [str(c) for c in result.metrics if not str(c).startswith("validation_")]
    frame = result.metrics[kept].copy()
    ensembles = {f"test_error_{level}": prune(result.ensemble, level / 100) for level in PRUNED}
    ensembles[f"test_error_int{BITS}"] = quantise(result.ensemble)
    for name, ensemble in ensembles.items():
        frame[name] = numbers(result.evaluate("test", ensemble)["error"], result)
    if _data(result).name in CONTROL:
        frame["score"] = numbers(play(result.ensemble, _data(result)), result)
        frame["score_90"] = numbers(play(ensembles["test_error_90"], _data(result)), result)
    frame["active_hops"] = numbers(count_hops(result), result)
    for name, values in look_at_states(result).items():
        frame[name] = numbers(values, result)
    rows = [n for n, network in enumerate(result.networks) if network.seed in followed]
    for n in rows:
        if result.diverged_at[n] < 0:
            for name, value in follow(result, n).items():
                frame.loc[n, name] = value
    return frame


def measure_set(result: TrainingResult, measures: Sequence[str] = ()) -> pd.DataFrame:
    """Return what sweeps keep of networks trained on a data set: both measurements above, and own measures.

    Parameters
    ----------
    result : TrainingResult
    measures : sequence of str
        Of `hoplens.extensions.register_measure`, which get the data set in place of a task.
    """
    frame = measure_report(result, ())
    chosen = measure_validation(result)
    for name in chosen:
        if name not in frame:
            frame[name] = chosen[name]
    own = [name for name in measures if name not in MEASURES.built_in]
    taken = [name for name in own if name in frame]
    if taken:
        raise ParameterError(f"the measure {taken[0]!r} has the name of a column of hoplens; rename it")
    for name, values in apply_measures(own, result.pathways.to(torch.float64), result.task).items():
        frame[name] = numbers(values, result)
    return frame


def _data(result: TrainingResult) -> SequenceData:
    assert isinstance(result.task, SequenceData)  # this study knows no other
    return result.task


def numbers(values: Tensor, result: TrainingResult) -> Any:
    """Return values (E,) as an array, NaN for networks that diverged."""
    return values.double().cpu().masked_fill((result.diverged_at >= 0).cpu(), math.nan).numpy()


def prune(ensemble: Ensemble, amount: float) -> Ensemble:
    """Return the networks without the share of recurrent weights that is smallest.

    Parameters
    ----------
    ensemble : Ensemble
    amount : float
        Share of all recurrent weights of all gates.
    """
    pruned = ensemble.clone()
    kept = pruned.keep(slice(0, pruned.size), torch.full((pruned.size,), amount))
    pruned.recurrent().mul_(kept)
    return pruned


def quantise(ensemble: Ensemble, bits: int = BITS) -> Ensemble:
    """Return the networks with weights rounded to integers times one scale a row, biases as they are.

    Symmetric, one scale for every row of W_h, of W_x and of the read-out: what int8 weights would compute, in
    floating point.

    Parameters
    ----------
    ensemble : Ensemble
    bits : int, default 8
    """
    rounded = ensemble.clone()
    h, most = rounded.n_hidden, 2 ** (bits - 1) - 1
    # rows of a matrix are columns of the stored weight, and rows of the read-out
    for block, axis in ((rounded.weight[:, :h], 1), (rounded.weight[:, h:-1], 1), (rounded.readout, 2)):
        scale = block.abs().amax(dim=axis, keepdim=True) / most
        scale = torch.where(scale > 0, scale, 1.0)
        block.copy_((block / scale).round() * scale)
    return rounded


def count_hops(result: TrainingResult) -> Tensor:
    """Return the mean number of active hops a pair of input and output, shape (E,)."""
    maps = hop_maps(result.pathways.to(torch.float64), result.length)
    return active_hops(maps).double().mean(dim=(-2, -1))


def play(ensemble: Ensemble, data: SequenceData) -> Tensor:
    """Return the closed-loop score of every network, shape (E,): 0 as random actions, 1 as the expert."""

    def policy(seen: Tensor, state: Any) -> tuple[Tensor, Any]:
        x = (seen if seen.dim() == 3 else seen[None]).mT.to(ensemble.weight)
        state = ensemble.advance(x, state)
        return torch.baddbmm(ensemble.offset, ensemble.readout, state[0]).mT, state

    return closed_loop_return(policy, data, episodes=EPISODES).score


def look_at_states(result: TrainingResult) -> dict[str, Tensor]:
    """Return the share of saturated states, and the mean memory gate where there is one, each (E,)."""
    ensemble, split = result.ensemble, _data(result).test
    inputs = split.inputs[: 8 * FOLLOWED_SEQUENCES].to(ensemble.weight)
    valid = split.mask[: len(inputs)].T[:, None, None]  # (L, 1, 1, B)
    h, i = ensemble.n_hidden, ensemble.n_inputs
    w_rec, w_in, bias = (part.mT for part in ensemble.weight.split([h, i, 1], dim=1))
    rows = slice(h, 2 * h)  # of a GRU's update gate, and of an LSTM's forget gate
    state, saturated, gates = None, [], []
    with torch.no_grad():
        for step in inputs.unbind(1):
            x = step.mT[None]
            if ensemble.kernel.blocks > 1:
                before = torch.zeros_like(w_rec[:, :h, :1]) if state is None else state[0]
                z = bias[:, rows] + w_in[:, rows] @ x + w_rec[:, rows] @ before
                gates.append(z.sigmoid())
            state = ensemble.advance(x, state)
            shown = state[0] if state[1] is None else state[1].tanh()
            saturated.append((shown.abs() > SATURATED).to(inputs))
        found = {"saturated": saturated, "gate": gates}
        count = valid.sum() * h
        return {
            name: (torch.stack(values) * valid).sum(dim=(0, 2, 3)) / count
            for name, values in found.items()
            if values
        }


def follow(result: TrainingResult, n: int) -> dict[str, float]:
    """Return how one network's flow along test sequences compares with its weights-only view."""
    net = result.pathways[n]
    model, split = result.model(n), _data(result).test
    count = min(FOLLOWED_SEQUENCES, len(split))
    flow = flow_along(model, [split.inputs[b, : int(split.lengths[b])] for b in range(count)])
    found = fidelity(net, flow)
    by_lag = flow.by_lag().abs().double()  # (B, L, O, I)
    steps = by_lag.shape[1]
    maps = hop_maps(net.to(torch.float64), steps).values.abs()
    return {
        "explained": float(found.explained.nanmean()),
        "correlation": float(found.correlation.nanmean()),
        "flow_hops": float(active_hops(by_lag).double().mean()),
        "reach": mean_lag(maps),
        "flow_reach": sum(mean_lag(own) for own in by_lag) / count,
    }


def flow_along(model: RecurrentModel, sequences: list[Tensor]) -> TrajectoryMaps:
    """Return the exact maps of a model along sequences of any lengths."""
    core = model.core.to_hoplens() if isinstance(model.core, LeakyRNN) else model.core
    return trajectory_maps(core, pack_sequence(sequences, enforce_sorted=False), readout=model.readout)


def mean_lag(maps: Tensor) -> float:
    """Return the mean lag of maps (L, O, I), weighted by their size."""
    mass = maps.sum(dim=(1, 2))
    lags = torch.arange(len(mass), dtype=mass.dtype)
    return float((lags * mass).sum() / mass.sum())


def profile(net: Pathways, length: int) -> Tensor:
    """Return the size of the weights-only map at every lag as a share of all, shape (L,)."""
    mass = hop_maps(net.to(torch.float64), length).values.abs().sum(dim=(-2, -1))
    return mass / mass.sum(dim=-1, keepdim=True)


__all__ = ["measure_report", "measure_set", "measure_validation", "play", "profile", "prune", "quantise"]
