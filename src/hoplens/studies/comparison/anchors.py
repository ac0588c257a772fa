"""The paper's reported figures beside ours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics import Interval, bootstrap_mean
from hoplens.studies.statistics.purposes import BEST, rows_at

CLOSE = 0.1  # two figures agree if they differ by at most this share of the paper's

Row = tuple[str, str, float, float, float, str, str]


def compare_with_paper(results: StudyResults) -> pd.DataFrame:
    """Return the paper's claims with our figures for the same methods.

    Columns claim, paper, ours, low, high (95 % interval over seeds), agrees ("yes", "direction only" or
    "no"), note.

    Notes
    -----
    The paper's figures: arXiv:2605.03598v2 as digested in public summaries. Its network sizes and training
    lengths are not all public, so agreement in size is not to be expected everywhere.
    """
    networks = results.networks
    report = rows_at(results.choices, networks[networks["role"] == "report"], BEST)
    sparse = report["task"].str.contains("sparse")
    rows = [
        _level("corr(R_io, optimal map), paper", report, "paper", "resolvent_corr", (0.92, 0.99)),
        _level("corr(W_rec, optimal map), paper", report, "paper", "weight_corr", (0.03, 0.24)),
        *_pair("accuracy, sparse tasks", report[sparse], "accuracy", 0.84, 0.91, up=True),
        *_pair("active hops per pair", report, "active_hops", 4.3, 2.1, up=False),
        *_pair("performance kept at 70 % pruned", report, "kept_70", 0.62, 0.78, up=True),
        *_pair("alignment of pathways and function", report, "alignment", 0.41, 0.68, up=True),
        _every_strength(networks),
    ]
    if "flow_hops" in report:  # both ways; stores of earlier versions have the weights' own alone
        rows += _pair("active hops per pair, of the flow", report, "flow_hops", 4.3, 2.1, up=False)
        rows += _pair("alignment of the flow and function", report, "flow_alignment", 0.41, 0.68, up=True)
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "low", "high", "agrees", "note"])


def _interval(report: pd.DataFrame, method: str, measure: str) -> Interval:
    """Return the mean over tasks with its interval over seeds; tasks are fixed, not drawn."""
    per_seed = report[report["method"] == method].groupby("seed")[measure].mean()
    return bootstrap_mean(per_seed.to_numpy(dtype=float))


def _level(claim: str, report: pd.DataFrame, method: str, measure: str, paper: tuple[float, float]) -> Row:
    per_task = report[report["method"] == method].groupby("task")[measure].mean()
    mean, low, high = _interval(report, method, measure)
    inside = paper[0] * (1 - CLOSE) <= mean <= paper[1] * (1 + CLOSE)
    note = f"task means {per_task.min():.2f} to {per_task.max():.2f}"
    return claim, f"{paper[0]:g} to {paper[1]:g}", mean, low, high, "yes" if inside else "no", note


def _pair(
    claim: str, report: pd.DataFrame, measure: str, paper_l1: float, paper_rrnn: float, *, up: bool
) -> list[Row]:
    """Return a row for L1 and one for the recipe `paper`; both say whether the difference has its sign."""
    means = {name: _interval(report, name, measure) for name in ("L1", "paper")}
    same_way = (means["paper"].mean > means["L1"].mean) == up
    rows: list[Row] = []
    for name, paper in (("L1", paper_l1), ("paper", paper_rrnn)):
        close = abs(means[name].mean - paper) <= CLOSE * paper
        verdict = ("yes" if close else "direction only") if same_way else "no"
        note = (
            "the paper's recipe is the better one, as in the paper"
            if same_way
            else "L1 is the better one here"
        )
        rows.append((f"{claim}, {name}", f"{paper:g}", *means[name], verdict, note))
    return rows


def _every_strength(networks: pd.DataFrame) -> Row:
    """Compare over all strengths, which the validation seeds have."""
    seen = networks[networks["role"] == "validation"]
    error = seen.groupby(["task", "strength", "method"])["test_error"].mean().unstack("method")
    both = error[["L1", "paper"]].dropna()
    lower = both["paper"] < both["L1"]
    share = float(np.mean(lower))
    verdict = "yes" if lower.all() else ("direction only" if share > 0.5 else "no")
    claim = "share of (task, strength) where the paper's recipe has the lower test error"
    note = f"{int(lower.sum())} of {len(lower)}, validation seeds"
    return claim, "1 (every strength)", share, np.nan, np.nan, verdict, note
