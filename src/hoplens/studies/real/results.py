"""What the study on real sequences found."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

TABLES = ("networks", "validation", "choices", "summary", "paired", "wiring", "aims")


@dataclass(frozen=True, eq=False)
class RealResults:
    """Tables of a finished study on real sequences.

    Attributes
    ----------
    networks : DataFrame
        One row a report network; columns as `hoplens.studies.real.measure.measure_report` says, task first.
    validation : DataFrame
        One row a validation network: task, method, strength, seed and what strengths are chosen by.
    choices : DataFrame
        task, method, pick ("best", "pruned", "lean"), strength.
    summary : DataFrame
        One row a (task, method, pick): strength, n, diverged, and mean with interval of every measure.
    paired : DataFrame
        Differences by seed of the recommended recipe to each method, for each pick.
    wiring : DataFrame
        One row a (task, arm): n, mean and interval of the test error, and the paired difference to "rewired"
        (masks) or "rewired start" (starting weights).
    aims : DataFrame
        aim, target, measured, met, where.
    units : dict
        What "test_error" is, by task.
    settings : dict
        How it was run.
    """

    networks: pd.DataFrame
    validation: pd.DataFrame
    choices: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    wiring: pd.DataFrame
    aims: pd.DataFrame
    units: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return every table by the name of the file it is written to."""
        return {name: getattr(self, name) for name in TABLES}


__all__ = ["RealResults"]
