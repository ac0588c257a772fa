"""What a study found: the tables that the page, the documents and the command line show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from hoplens.analysis.hops import HopMaps
from hoplens.studies.statistics.purposes import BEST

TABLES = ("networks", "choices", "summary", "paired", "reach", "ablation", "anchors", "aims")


def _none() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Tables of a study; any but the first two may be empty.

    Attributes
    ----------
    networks : DataFrame
        One row a trained network of the main comparison: task, method, strength, seed, role
        ("validation" or "report"), diverged_at and the measures, see `hoplens.studies.measuring.measure`.
    summary : DataFrame
        One row a (task, method, pick): strength, n, diverged, and mean with interval of every measure;
        ``pick`` is what the strength was chosen for.
    choices : DataFrame
        task, method, pick, strength.
    paired : DataFrame
        Differences by seed: task, method, pick, reference, measure, difference, low, high, p, n, p_holm.
    reach : DataFrame
        One row a network of the reach part: method, lag, strength, seed, role, test_error.
    ablation : DataFrame
        Like ``summary``, one row a (task, arm).
    anchors : DataFrame
        The paper's figures beside ours: claim, paper, ours, low, high, agrees, note.
    aims : DataFrame
        What the study is held to: aim, target, measured, met, where.
    tasks : dict
        What the tasks of the main comparison are, by their label, where that is known.
    examples : dict
        Method -> (task label, hop maps of one network); "target" -> the task's own hop maps.
    settings : dict
        How it was run.
    """

    networks: pd.DataFrame
    summary: pd.DataFrame
    choices: pd.DataFrame = field(default_factory=_none)
    paired: pd.DataFrame = field(default_factory=_none)
    reach: pd.DataFrame = field(default_factory=_none)
    ablation: pd.DataFrame = field(default_factory=_none)
    anchors: pd.DataFrame = field(default_factory=_none)
    aims: pd.DataFrame = field(default_factory=_none)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, HopMaps] | HopMaps] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return every table by the name of the file it is written to."""
        return {name: getattr(self, name) for name in TABLES}

    def at(self, pick: str = BEST) -> StudyResults:
        """Return the results whose summary and paired differences are those of one purpose."""
        chosen = {
            name: frame[frame["pick"] == pick].reset_index(drop=True)
            for name in ("summary", "paired")
            if "pick" in (frame := getattr(self, name))
        }
        return replace(self, **chosen)


__all__ = ["StudyResults"]
