"""What a study found: the tables that the report and the command line show."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from hoplens.analysis.hops import HopMaps


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Tables of a finished study.

    Attributes
    ----------
    networks : DataFrame
        One row a trained network of the main comparison: task, method, strength, seed, role
        ("validation" or "report"), test_error (share of the target variance), accuracy, resolvent_corr,
        weight_corr, active_hops, target_active_hops, alignment, temporal_sparsity, signal_share,
        kept_10 .. kept_90, diverged_at.
    summary : DataFrame
        One row a (task, method): chosen strength, n, diverged, and mean with interval of every measure.
    paired : DataFrame
        Differences by seed: task, method, reference, measure, difference, low, high, p, n, p_holm.
    reach : DataFrame
        One row a network of the reach part: method, lag, strength, seed, role, test_error.
    ablation : DataFrame
        Like ``summary``, one row a (task, arm).
    anchors : DataFrame
        The paper's figures beside ours: claim, paper, ours, low, high, agrees, note.
    aims : DataFrame
        What hoplens set out to reach: aim, target, measured, met, where.
    examples : dict
        Method -> (task label, hop maps of one network); "target" -> the task's own hop maps.
    settings : dict
        How it was run.
    """

    networks: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    reach: pd.DataFrame
    ablation: pd.DataFrame
    anchors: pd.DataFrame
    aims: pd.DataFrame
    examples: dict[str, tuple[str, HopMaps] | HopMaps] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return every table by the name of the file it is written to."""
        names = ("networks", "summary", "paired", "reach", "ablation", "anchors", "aims")
        return {name: getattr(self, name) for name in names}
