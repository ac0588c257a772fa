"""The study's tables as Markdown, for documents."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from hoplens.studies.paper.aims import OURS, RIVALS, reach_means
from hoplens.studies.paper.results import StudyResults
from hoplens.text import for_markdown

OTHERS = ("none", "L1", "L2", "paper")


def to_markdown(results: StudyResults) -> str:
    """Return the tables of a study: errors, structure, ablation, reach, aims, and the paper's figures."""
    sections = {
        "Test error at each method's own best strength": _errors(results.summary),
        f"Structure and pruning ({' / '.join((*RIVALS, OURS))})": _structure(results.summary),
        "Ablation: which part brings what": _ablation(results.ablation),
        "Reach: test error by lag": _reach(results.reach),
        "Aims of the recommended recipe": table(results.aims.columns, results.aims.to_numpy().tolist()),
        "Beside the paper": _anchors(results.anchors),
    }
    return "\n".join(f"## {title}\n\n{body}\n" for title, body in sections.items() if body)


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    headings : iterable of str
    rows : iterable of iterable
    """
    names = list(headings)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: object) -> str:
    """Return a value as a cell of a Markdown table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(for_markdown(value))


def _errors(summary: pd.DataFrame) -> str:
    rows = []
    for task, group in summary.groupby("task", sort=False):
        by = group.set_index("method")
        error = by["test_error"]
        others = [f"{error[name]:.4f}" if name in error else "" for name in OTHERS]
        ours = f"{error[OURS]:.4f} [{by['test_error_low'][OURS]:.4f}, {by['test_error_high'][OURS]:.4f}]"
        rows.append([task, *others, ours, f"{error[OURS] / error.reindex(list(RIVALS)).min():.2f}"])
    return table(
        ["task", *OTHERS, f"{OURS} [95 %]", "ratio to the better of L1 and the paper's recipe"], rows
    )


def _structure(summary: pd.DataFrame) -> str:
    shown = {"accuracy": 3, "alignment": 2, "active_hops": 2, "kept_70": 2, "kept_90": 2}
    rows = []
    for task, group in summary.groupby("task", sort=False):
        by = group.set_index("method").reindex([*RIVALS, OURS])
        cells = [" / ".join(f"{value:.{digits}f}" for value in by[name]) for name, digits in shown.items()]
        rows.append([task, *cells, f"{group['target_active_hops'].iloc[0]:.2f}"])
    headings = ["accuracy", "alignment", "active hops", "kept at 70 % removed", "kept at 90 % removed"]
    return table(["task", *headings, "true active hops"], rows)


def _ablation(ablation: pd.DataFrame) -> str:
    if ablation.empty:
        return ""
    shown = ["test_error", "accuracy", "alignment", "kept_70", "kept_90"]
    records = ablation[["task", "method", *shown]].itertuples(index=False)
    rows = [
        [task, arm, *(f"{value:.{4 if n == 0 else 3}f}" for n, value in enumerate(values))]
        for task, arm, *values in records
    ]
    return table(["task", "arm", "test error", *shown[1:]], rows)


def _reach(reach: pd.DataFrame) -> str:
    if reach.empty:
        return ""
    means = reach_means(reach)
    rows = [[method, *(f"{value:.3f}" for value in row)] for method, row in means.iterrows()]
    return table(["method", *(f"lag {lag}" for lag in means.columns)], rows)


def _anchors(anchors: pd.DataFrame) -> str:
    rows = []
    for row in anchors.to_dict("records"):
        bounds = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
        rows.append([row["claim"], row["paper"], f"{row['ours']:.2f}{bounds}", row["agrees"], row["note"]])
    return table(["claim", "paper", "ours [95 %]", "agrees", "note"], rows)
