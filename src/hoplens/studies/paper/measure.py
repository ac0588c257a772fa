"""What the study measures on every trained network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.measures import (
    active_hops,
    alignment,
    map_correlation,
    signal_share,
    temporal_sparsity,
    weight_map,
)
from hoplens.analysis.resolvent import resolvent
from hoplens.errors import ParameterError
from hoplens.graph.scores import top_mask
from hoplens.models.ensemble import Ensemble
from hoplens.studies.extensions import apply_measures
from hoplens.training.evaluation import evaluate
from hoplens.training.training import TrainingResult

if TYPE_CHECKING:
    import pandas as pd

PRUNING_LEVELS = tuple(range(10, 100, 10))  # percent of the recurrent weights
PRUNING_SAMPLES = 1024
RESOLVENT_DAMPING = 0.8


def measure(result: TrainingResult, measures: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row a network: the training metrics and everything that the study compares.

    Columns beside those of ``result.metrics``: active_hops, temporal_sparsity, kept_10 .. kept_90; where the
    task declares its ``target_maps`` also resolvent_corr, weight_corr, alignment and target_active_hops, and
    with ``signal_hops`` signal_share. A network that diverged, or whose spectral radius is 0 (all recurrent
    weights gone), has NaN where there is nothing to measure.

    Parameters
    ----------
    result : TrainingResult
    measures : sequence of str
        Measures of `hoplens.register_measure` to add, one column each.
    """
    task, frame = result.task, result.metrics.copy()
    net = result.pathways.to(torch.float64)
    maps = hop_maps(net, task.length)
    target, signal = getattr(task, "target_maps", None), getattr(task, "signal_hops", None)
    columns: dict[str, Tensor] = {}
    if target is not None:
        total = target.to(maps.values.device).sum(dim=0)
        columns["resolvent_corr"] = _resolvent_corr(result, total)
        columns["weight_corr"] = map_correlation(weight_map(net), total)
    columns["active_hops"] = active_hops(maps).double().mean(dim=(-2, -1))
    if target is not None:
        columns["alignment"] = alignment(maps, target.to(maps.values.device))
    columns["temporal_sparsity"] = mass_weighted(temporal_sparsity(maps), maps)
    if signal is not None:
        columns["signal_share"] = signal_share(maps, signal)
    columns |= pruning_curve(result)
    own = apply_measures(measures, net, task)
    taken = [name for name in own if name in columns or name in frame or name == "target_active_hops"]
    if taken:
        raise ParameterError(f"the measure {taken[0]!r} has the name of a column of hoplens; rename it")
    columns |= own
    lost = result.diverged_at >= 0
    for name, values in columns.items():
        frame[name] = values.double().masked_fill(lost, torch.nan).cpu().numpy()
    if target is not None:
        frame["target_active_hops"] = float((target != 0).sum(dim=0).double().mean())
    return frame


def _resolvent_corr(result: TrainingResult, total: Tensor) -> Tensor:
    values = []
    for n in range(result.ensemble.size):
        net = result.pathways[n].to(torch.float64)
        if float(torch.linalg.eigvals(net.w_rec).abs().max()) == 0.0:
            values.append(torch.tensor(torch.nan, dtype=torch.float64, device=total.device))
            continue
        res = resolvent(net, damping=RESOLVENT_DAMPING, horizon=result.task.length)
        values.append(map_correlation(res.value, total))
    return torch.stack(values)


def mass_weighted(per_pair: Tensor, maps: HopMaps) -> Tensor:
    """Average a measure over pairs, each weighted by its pathway mass; pairs without mass do not count.

    Parameters
    ----------
    per_pair : Tensor, shape (..., O, I)
    maps : HopMaps

    Returns
    -------
    Tensor, shape (...,)
    """
    mass = maps.values.abs().sum(dim=-3)
    weighted = torch.where(mass > 0, per_pair * mass, torch.zeros_like(mass))
    return weighted.sum(dim=(-2, -1)) / mass.sum(dim=(-2, -1))


def pruning_curve(result: TrainingResult) -> dict[str, Tensor]:
    """Return the performance kept after one-shot magnitude pruning of the recurrent weights.

    Performance is the explained share of the target variance, 1 - test_mse; kept is its ratio after to
    before, not below 0. A network that explains less than nothing has nothing to keep: 0.
    """
    task = result.task
    before = 1 - evaluate(task, result.ensemble, samples=PRUNING_SAMPLES)[0]
    scores = result.ensemble.scores()
    kept = {}
    for level in PRUNING_LEVELS:
        pruned: Ensemble = result.ensemble.clone()
        pruned.recurrent().mul_(top_mask(scores, level / 100).mT)
        after = 1 - evaluate(task, pruned, samples=PRUNING_SAMPLES)[0]
        kept[f"kept_{level}"] = torch.where(before > 0, after.clamp_min(0) / before, torch.zeros_like(before))
    return kept
