"""What the study measures on every trained network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.data.streams import TrainingTask
from hoplens.errors import ParameterError
from hoplens.graph.scores import top_mask
from hoplens.models.ensemble import Ensemble
from hoplens.studies.measures import BUILT_IN, MEASURES, PRUNING_LEVELS, TARGET, apply_measures
from hoplens.training.evaluation import evaluate
from hoplens.training.result import TrainingResult

if TYPE_CHECKING:
    import pandas as pd

PRUNING_SAMPLES = 1024


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
        Measures of `hoplens.extensions.register_measure` to add, one column each.
    """
    task, frame = result.task, result.metrics.copy()
    net = result.pathways.to(torch.float64)
    columns = apply_measures([m.name for m in (*BUILT_IN, TARGET) if m.function is not None], net, task)
    columns |= pruning_curve(result)
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
    return frame


def pruning_curve(result: TrainingResult) -> dict[str, Tensor]:
    """Return the performance kept after one-shot magnitude pruning of the recurrent weights.

    Performance is the explained share of the target variance, 1 - test_error; kept is its ratio after to
    before, not below 0. A network that explains less than nothing has nothing to keep: 0.
    """
    task = result.task
    assert isinstance(task, TrainingTask)  # data sets have a study of their own
    before = 1 - evaluate(task, result.ensemble, samples=PRUNING_SAMPLES)[0]
    scores = result.ensemble.scores()
    kept = {}
    for level in PRUNING_LEVELS:
        pruned: Ensemble = result.ensemble.clone()
        pruned.recurrent().mul_(top_mask(scores, level / 100))
        after = 1 - evaluate(task, pruned, samples=PRUNING_SAMPLES)[0]
        kept[f"kept_{level}"] = torch.where(before > 0, after.clamp_min(0) / before, torch.zeros_like(before))
    return kept
