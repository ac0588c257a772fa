"""What studies measure on trained networks: one row a network, by what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.analysis.fidelity import agreement
from hoplens.analysis.hops import hop_maps
from hoplens.analysis.measures import active_hops, alignment
from hoplens.data.closed_loop import closed_loop_return
from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask
from hoplens.errors import ParameterError
from hoplens.models.ensemble import Ensemble
from hoplens.models.readers.reading import read
from hoplens.penalties.held import ensemble_maps
from hoplens.seeds import generator
from hoplens.studies.measures import BUILT_IN, MEASURES, PRUNING_LEVELS, TARGET, apply_measures
from hoplens.training.evaluation import evaluate
from hoplens.training.result import TrainingResult

if TYPE_CHECKING:
    import pandas as pd

PRUNING_SAMPLES = 1024
PRUNED = {
    "test": (50, 70, 90),
    "validation": (70, 90),
}  # of data sets, percent of the recurrent weights removed
FOLLOWED_SEQUENCES = 8  # of the test split, along which states are looked at
FLOW_SEQUENCES = 64  # along which flow is measured
SATURATED = 0.9  # a unit this close to its bounds hands on little of what changes
GATED = ("gru", "lstm")
BITS = 8
CONTROL = ("cartpole", "pendulum")
EPISODES = 32


def measure(
    result: TrainingResult, measures: Sequence[str] = (), *, followed: Sequence[int] = ()
) -> pd.DataFrame:
    """Return one row a network: the training metrics and everything that studies compare.

    Of a task, beside the columns of ``result.metrics``: active_hops, temporal_sparsity, kept_10 .. kept_90;
    flow_hops and flow_alignment, of what flows along sequences;
    where the task declares its ``target_maps`` also resolvent_corr, weight_corr, alignment and
    target_active_hops, and with ``signal_hops`` signal_share.

    Of a data set: test_error_50, _70, _90 and validation_error_70, _90 with so much of the recurrent weights
    removed; test_error_int8 with weights rounded to 8 bits; score (control, in closed loop; score_90 pruned);
    active_hops; flow_hops; saturated (share of states near their bounds) and gate (mean of a GRU's update or
    an LSTM's forget gate); and `flow_measures` of networks whose seed is followed.

    Then one column for each of ``measures``, of `hoplens.extensions.register_measure`. A network that
    diverged, or whose spectral radius is 0 (all recurrent weights gone), has NaN where there is nothing to
    measure.
    """
    task, frame = result.task, result.metrics.copy()
    net = result.pathways.to(torch.float64)
    columns = _of_set(result) if isinstance(task, SequenceData) else _of_task(result)
    own = [name for name in measures if name not in MEASURES.built_in]  # those are measured anyway
    taken = [name for name in own if name in columns or name in frame]
    if taken:
        raise ParameterError(f"the measure {taken[0]!r} has the name of a column of hoplens; rename it")
    columns |= apply_measures(own, net, task)
    lost = result.diverged_at >= 0
    for name, values in columns.items():
        frame[name] = values.double().masked_fill(lost, torch.nan).cpu().numpy()
    if TARGET.name in frame:  # the task's own, whatever became of a network
        frame[TARGET.name] = columns[TARGET.name].cpu().numpy()
    for n, network in enumerate(result.networks):
        if network.seed in followed and not lost[n]:
            for name, value in flow_measures(result, n).items():
                frame.loc[n, name] = value
    return frame


def _of_task(result: TrainingResult) -> dict[str, Tensor]:
    computed = [measure.name for measure in (*BUILT_IN, TARGET) if measure.function is not None]
    columns = apply_measures(computed, result.pathways.to(torch.float64), result.task)
    return columns | _flow_of_task(result) | pruning_curve(result)


def _flow_of_task(result: TrainingResult) -> dict[str, Tensor]:
    """Return active hops of what flows along fresh sequences, and its alignment where the truth is known."""
    task = result.task
    assert isinstance(task, TrainingTask)
    source = generator("sequences that flow is measured along", 0)
    inputs = task.sample(FLOW_SEQUENCES, generator=source, dtype=result.ensemble.weight.dtype)[0]
    signed, absolute = ensemble_maps(result.ensemble, inputs, torch.full((len(inputs),), inputs.shape[1]))
    columns = {"flow_hops": active_hops(absolute).double().mean(dim=(-2, -1))}
    target = getattr(task, "target_maps", None)
    if target is not None and target.shape == signed.shape[1:]:
        columns["flow_alignment"] = alignment(signed, target.to(signed))
    return columns


def pruning_curve(result: TrainingResult) -> dict[str, Tensor]:
    """Return the performance kept after one-shot magnitude pruning of the recurrent weights.

    Performance is the explained share of the target variance, 1 - test_error; kept is its ratio after to
    before, not below 0. A network that explains less than nothing has nothing to keep: 0.
    """
    task = result.task
    assert isinstance(task, TrainingTask)
    before = 1 - evaluate(task, result.ensemble, samples=PRUNING_SAMPLES)[0]
    kept = {}
    for level in PRUNING_LEVELS:
        after = 1 - evaluate(task, prune(result.ensemble, level / 100), samples=PRUNING_SAMPLES)[0]
        kept[f"kept_{level}"] = torch.where(before > 0, after.clamp_min(0) / before, torch.zeros_like(before))
    return kept


def _of_set(result: TrainingResult) -> dict[str, Tensor]:
    data, ensemble = _data(result), result.ensemble
    columns = {}
    for split, levels in PRUNED.items():
        for level in levels:
            pruned = prune(ensemble, level / 100)
            columns[f"{split}_error_{level}"] = result.evaluate(split, pruned)["error"]
    columns[f"test_error_int{BITS}"] = result.evaluate("test", quantise(ensemble))["error"]
    if data.name in CONTROL:
        columns |= {"score": play(ensemble, data), "score_90": play(prune(ensemble, 0.9), data)}
    test = data.test
    some = slice(0, FLOW_SEQUENCES)
    _, absolute = ensemble_maps(ensemble, test.inputs[some], test.lengths[some])
    columns["flow_hops"] = active_hops(absolute).double().mean(dim=(-2, -1))
    return columns | {"active_hops": count_hops(result)} | look_at_states(result)


def _data(result: TrainingResult) -> SequenceData:
    assert isinstance(result.task, SequenceData)
    return result.task


def prune(ensemble: Ensemble, amount: float) -> Ensemble:
    """Return the networks without this share of the recurrent weights of all gates, the smallest."""
    pruned = ensemble.clone()
    kept = pruned.keep(slice(0, pruned.size), torch.full((pruned.size,), amount))
    pruned.recurrent().mul_(kept)
    return pruned


def quantise(ensemble: Ensemble, bits: int = BITS) -> Ensemble:
    """Return the networks with weights rounded to integers times one scale a row, biases as they are.

    Symmetric, one scale for every row of W_h, of W_x and of the read-out: what int8 weights would compute, in
    floating point.
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
    valid = split.mask[: len(inputs)].T[:, None, None].to(inputs.device)  # (L, 1, 1, B)
    h, i = ensemble.n_hidden, ensemble.n_inputs
    w_rec, w_in, bias = (part.mT for part in ensemble.weight.split([h, i, 1], dim=1))
    rows = slice(h, 2 * h)  # of a GRU's update gate, and of an LSTM's forget gate
    state, saturated, gates = None, [], []
    with torch.no_grad():
        for step in inputs.unbind(1):
            x = step.mT[None]
            if ensemble.cell in GATED:
                before = torch.zeros_like(w_rec[:, :h, :1]) if state is None else state[0]
                z = bias[:, rows] + w_in[:, rows] @ x + w_rec[:, rows] @ before
                gates.append(z.sigmoid())
            state = ensemble.advance(x, state)
            shown = state[0] if state[1] is None else state[1].tanh()
            saturated.append((shown.abs() > SATURATED).to(inputs))
        count = valid.sum() * h
        return {
            name: (torch.stack(values) * valid).sum(dim=(0, 2, 3)) / count
            for name, values in {"saturated": saturated, "gate": gates}.items()
            if values
        }


def flow_measures(result: TrainingResult, n: int) -> dict[str, float]:
    """Return how one network's flow along test sequences of its data set compares with its graphs.

    Of the bare weights (or a gated cell's origin): explained (share of the exact mean maps), correlation,
    reach (mean lag of the maps, weighted by size); of the static graph of mean slopes: static_correlation;
    of the flow: flow_reach.
    """
    model, split = result.model(n), _data(result).test
    some = slice(0, FLOW_SEQUENCES)
    inputs, lengths = split.inputs[some], split.lengths[some]
    exact = hop_maps(model, inputs=inputs, lengths=lengths)
    bare = result.pathways[n].detach()
    fit = agreement(bare, exact)
    static = read(model, inputs=inputs, lengths=lengths).agreement
    assert static is not None  # as it was read along data
    maps = hop_maps(bare.to(torch.float64), len(exact.hops)).values.abs()
    return {
        "explained": fit.explained,
        "correlation": fit.correlation,
        "static_correlation": static.correlation,
        "reach": _mean_lag(maps),
        "flow_reach": _mean_lag(exact.values.abs().double()),
    }


def _mean_lag(maps: Tensor) -> float:
    """Return the mean lag of maps (L, O, I), weighted by their size."""
    mass = maps.sum(dim=(1, 2))
    lags = torch.arange(len(mass), dtype=mass.dtype, device=mass.device)
    return float((lags * mass).sum() / mass.sum())


__all__ = ["count_hops", "flow_measures", "measure", "play", "prune", "pruning_curve", "quantise"]
