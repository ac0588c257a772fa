"""The tables of the study on real sequences as Markdown, for documents."""

from __future__ import annotations

import pandas as pd

from hoplens.studies.paper.aims import OURS
from hoplens.studies.paper.markdown import table
from hoplens.studies.real.aims import L1, RIVALS
from hoplens.studies.real.choosing import BEST, LEAN, PRUNED
from hoplens.studies.real.measure import CONTROL
from hoplens.studies.real.results import RealResults

VIEWED = ("none", L1, "paper", OURS)
ABLATIONS = ("none + pruning", "L1 + pruning", "recommended - pruning")


def to_markdown(results: RealResults) -> str:
    """Return the tables of a study on real sequences.

    Parameters
    ----------
    results : RealResults
    """
    sections = {
        "Test error at each method's own best strength": _errors(results),
        "At equal sparsity: test error with 90 % of the recurrent weights removed": _pruned(results),
        "Active hops of networks as good as L1 at its best": _hops(results),
        "With 8-bit weights": _rounded(results),
        "Closed loop: 0 is random actions, 1 the expert": _control(results.summary),
        "What the weights-only view says of the flow on data": _view(results.summary),
        "The worm's wiring": _wiring(results.wiring),
        "Aims": table(results.aims.columns, results.aims.to_numpy().tolist()),
    }
    return "\n".join(f"## {title}\n\n{body}\n" for title, body in sections.items() if body)


def _of(summary: pd.DataFrame, task: str, pick: str) -> pd.DataFrame:
    return summary[(summary["task"] == task) & (summary["pick"] == pick)].set_index("method")


def _tasks(summary: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(summary["task"]))


def _mean(own: pd.DataFrame, method: str, measure: str, digits: int = 4) -> str:
    if method not in own.index or measure not in own.columns or pd.isna(own[measure][method]):
        return ""
    return f"{own[measure][method]:.{digits}f}"


def _with_interval(own: pd.DataFrame, method: str, measure: str, digits: int = 4) -> str:
    mean = _mean(own, method, measure, digits)
    if not mean:
        return ""
    low, high = own[f"{measure}_low"][method], own[f"{measure}_high"][method]
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def _errors(results: RealResults) -> str:
    rows = []
    for task in _tasks(results.summary):
        own = _of(results.summary, task, BEST)
        others = [_mean(own, method, "test_error") for method in RIVALS]
        rows.append([task, results.units.get(task, ""), *others, _with_interval(own, OURS, "test_error")])
    return table(["set", "error is", *RIVALS, f"{OURS} [95 %]"], rows)


def _pruned(results: RealResults) -> str:
    rows = []
    gaps = results.paired[
        (results.paired["pick"] == PRUNED)
        & (results.paired["reference"] == L1)
        & (results.paired["measure"] == "test_error_90")
    ].set_index("task")
    for task in _tasks(results.summary):
        own = _of(results.summary, task, PRUNED)
        gap = ""
        if task in gaps.index:
            row = gaps.loc[task]
            gap = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        others = [_mean(own, method, "test_error_90") for method in ("none", L1, "paper", *ABLATIONS)]
        rows.append([task, *others, _with_interval(own, OURS, "test_error_90"), gap])
    return table(["set", "none", L1, "paper", *ABLATIONS, f"{OURS} [95 %]", f"minus {L1}, paired"], rows)


def _hops(results: RealResults) -> str:
    rows = []
    for task in _tasks(results.summary):
        best, lean = _of(results.summary, task, BEST), _of(results.summary, task, LEAN)
        if L1 not in best.index or OURS not in lean.index:
            continue
        ratio = lean["active_hops"][OURS] / best["active_hops"][L1]
        rows.append(
            [
                task,
                _mean(best, L1, "test_error"),
                _mean(lean, OURS, "test_error"),
                _with_interval(best, L1, "active_hops", 1),
                _with_interval(lean, OURS, "active_hops", 1),
                f"{ratio:.2f}",
                _mean(lean, "paper", "active_hops", 1),
            ]
        )
    headings = [f"{L1}: error", f"{OURS}: error", f"{L1}: hops", f"{OURS}: hops", "ratio", "paper: hops"]
    return table(["set", *headings], rows)


def _rounded(results: RealResults) -> str:
    rows = []
    for task in _tasks(results.summary):
        own = _of(results.summary, task, BEST)
        cells = [
            f"{own['test_error_int8'][m] - own['test_error'][m]:+.4f}" if m in own.index else ""
            for m in (*RIVALS, OURS)
        ]
        rows.append([task, *cells])
    return table(["set: change of the test error", *RIVALS, OURS], rows)


def _control(summary: pd.DataFrame) -> str:
    if "score" not in summary:
        return ""
    rows = []
    for task in _tasks(summary):
        if task not in CONTROL:
            continue
        own, pruned = _of(summary, task, BEST), _of(summary, task, PRUNED)
        rows.append([task, "all weights", *(_with_interval(own, m, "score", 2) for m in (*RIVALS, OURS))])
        rows.append(
            [task, "90 % removed", *(_with_interval(pruned, m, "score_90", 2) for m in (*RIVALS, OURS))]
        )
    return table(["set", "weights", *RIVALS, OURS], rows) if rows else ""


def _view(summary: pd.DataFrame) -> str:
    digits = {"correlation": 2, "reach": 1, "flow_reach": 1, "active_hops": 1, "flow_hops": 1}
    digits |= {"saturated": 2, "gate": 2}
    rows = []
    for task in _tasks(summary):
        own = _of(summary, task, BEST)
        for method in VIEWED:
            if method in own.index:
                cells = [_mean(own, method, name, d) for name, d in digits.items()]
                rows.append([task, method, _explained(own, method), *cells])
    headings = [
        "flow explained",
        "correlation",
        "mean lag, weights",
        "mean lag, flow",
        "active hops, weights",
    ]
    return table(["set", "method", *headings, "active hops, flow", "saturated", "memory gate"], rows)


def _explained(own: pd.DataFrame, method: str) -> str:
    """Return the share of the flow explained; far below 0 only the fact matters."""
    value = float(own["explained"][method])
    return "below -10" if value < -10 else f"{value:.2f}"


def _wiring(wiring: pd.DataFrame) -> str:
    if wiring.empty:
        return ""
    rows = [
        [
            row["task"],
            row["arm"],
            row["n"],
            f"{row['nonzero']:.0f}",
            f"{row['test_error']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
            f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]",
        ]
        for row in wiring.to_dict("records")
    ]
    return table(["set", "wiring", "networks", "weights", "test error [95 %]", "minus rewired, paired"], rows)


__all__ = ["to_markdown"]
