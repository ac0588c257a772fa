"""A study's tables as Markdown, for documents: those sections for which it has numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from hoplens.data import registry as data_sets
from hoplens.studies.comparison.aims import OTHERS, RIVALS, pruned_gaps, reach_means
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.purposes import BEST, LEAN, OURS, PRUNED, REFERENCE, SPARSE
from hoplens.studies.sweeps.settings import DataSource
from hoplens.text import for_markdown

VIEWED = ("none", REFERENCE, "paper", OURS)
ABLATIONS = ("none + pruning", "L1 + pruning")
UNITS = {
    "class": "share of wrong classes",
    "step class": "bits a step",
    "step labels": "nats a step",
    "step values": "share of the targets' variance",
}


def to_markdown(results: StudyResults) -> str:
    """Return the tables of a study as one text."""
    sections = {title: section(results) for title, section in SECTIONS.items()}
    return "\n".join(f"## {title}\n\n{body}\n" for title, body in sections.items() if body)


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(headings)
    head, *body = ([_cell(value) for value in line] for line in (names, *rows))
    lines = [head, ["---"] * len(names), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(for_markdown(value))


def unit(results: StudyResults, task: str) -> str:
    """Return what the test error of a task is; empty where the task is not known."""
    source = results.tasks.get(task)
    form = data_sets.SETS[source.name].form if isinstance(source, DataSource) else "step values"
    return "" if source is None else UNITS[form]


def _groups(results: StudyResults, pick: str = BEST) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of every task at one purpose, indexed by method."""
    groups = results.at(pick).summary.groupby("task", sort=False)
    return [(str(task), own.set_index("method")) for task, own in groups]


def _others(results: StudyResults) -> list[str]:
    return [name for name in OTHERS if name in set(results.summary["method"])]


def mean(own: pd.DataFrame, method: str, measure: str, digits: int = 4) -> str:
    """Return a mean as a cell; empty where it is not there."""
    if method not in own.index or measure not in own.columns or pd.isna(own[measure][method]):
        return ""
    return f"{own[measure][method]:.{digits}f}"


def with_interval(own: pd.DataFrame, method: str, measure: str, digits: int = 4) -> str:
    """Return a mean with its interval as a cell; empty where it is not there."""
    value = mean(own, method, measure, digits)
    if not value:
        return ""
    low, high = own[f"{measure}_low"][method], own[f"{measure}_high"][method]
    return f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


def _has(results: StudyResults, *measures: str, pick: str = BEST) -> bool:
    summary = results.at(pick).summary
    return bool(len(summary)) and all(name in summary and summary[name].notna().any() for name in measures)


def _errors(results: StudyResults) -> str:
    rows, others = [], _others(results)
    for task, own in _groups(results):
        ratio = own["test_error"].get(OURS, float("nan")) / own["test_error"].reindex(list(RIVALS)).min()
        errors = [mean(own, method, "test_error") for method in others]
        ours = with_interval(own, OURS, "test_error")
        rows.append([task, unit(results, task), *errors, ours, "" if pd.isna(ratio) else f"{ratio:.2f}"])
    ratio_of = "ratio to the better of L1 and the paper's recipe"
    return table(["task", "error is", *others, f"{OURS} [95 %]", ratio_of], rows)


def _structure(results: StudyResults) -> str:
    shown = {"accuracy": 3, "flow_alignment": 2, "alignment": 2, "flow_hops": 2, "active_hops": 2}
    if not _has(results, *shown):
        return ""
    rows = []
    for task, own in _groups(results):
        by = own.reindex([*RIVALS, OURS])
        cells = [" / ".join(f"{value:.{digits}f}" for value in by[name]) for name, digits in shown.items()]
        rows.append([task, *cells, f"{own['target_active_hops'].iloc[0]:.2f}"])
    headings = [
        "accuracy",
        "alignment, flow",
        "alignment, weights",
        "active hops, flow",
        "active hops, weights",
    ]
    return table(["task", *headings, "true active hops"], rows)


def _kept(results: StudyResults) -> str:
    if not _has(results, "kept_70", "kept_90"):
        return ""
    methods = [name for name in (*_others(results), OURS, SPARSE) if name in set(results.summary["method"])]
    rows = [
        [task, *(f"{mean(own, m, 'kept_70', 2)} / {mean(own, m, 'kept_90', 2)}" for m in methods)]
        for task, own in _groups(results)
    ]
    return table(["task: kept at 70 % / 90 % removed", *methods], rows)


def _pruned(results: StudyResults) -> str:
    if not _has(results, "test_error_90", pick=PRUNED):
        return ""
    gaps, rows = pruned_gaps(results).set_index("task"), []
    there = set(results.summary["method"])
    methods = [name for name in (*_others(results), *ABLATIONS, OURS) if name in there]
    for task, own in _groups(results, PRUNED):
        gap = ""
        if task in gaps.index:
            row = gaps.loc[task]
            gap = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        others = [mean(own, method, "test_error_90") for method in methods]
        rows.append([task, *others, with_interval(own, SPARSE, "test_error_90"), gap])
    return table(["set", *methods, f"{SPARSE} [95 %]", f"{OURS} minus {REFERENCE}, paired"], rows)


def _hops(results: StudyResults) -> str:
    if not _has(results, "flow_hops", pick=LEAN):
        return ""
    rows, leanest = [], dict(_groups(results, LEAN))
    for task, best in _groups(results):
        lean = leanest[task]
        if REFERENCE not in best.index or OURS not in lean.index:
            continue
        rows.append(
            [
                task,
                mean(best, REFERENCE, "test_error"),
                mean(lean, OURS, "test_error"),
                with_interval(best, REFERENCE, "flow_hops", 1),
                with_interval(lean, OURS, "flow_hops", 1),
                f"{lean['flow_hops'][OURS] / best['flow_hops'][REFERENCE]:.2f}",
                mean(lean, "hops", "flow_hops", 1),
            ]
        )
    both = [f"{name}: {what}" for what in ("error", "hops") for name in (REFERENCE, OURS)]
    return table(["set", *both, "ratio", "hops: hops"], rows)


def _rounded(results: StudyResults) -> str:
    if not _has(results, "test_error_int8"):
        return ""
    rows, methods = [], (*_others(results), OURS)
    for task, own in _groups(results):
        change = own["test_error_int8"] - own["test_error"]
        rows.append([task, *(f"{change[m]:+.4f}" if m in own.index else "" for m in methods)])
    return table(["set: change of the test error", *methods], rows)


def _control(results: StudyResults) -> str:
    if not _has(results, "score"):
        return ""
    rows, methods = [], (*_others(results), OURS)
    pruned = dict(_groups(results, PRUNED))
    for task, own in _groups(results):
        if own["score"].notna().any():
            rows.append([task, "all weights", *(with_interval(own, m, "score", 2) for m in methods)])
            cut = pruned.get(task, own)
            rows.append([task, "90 % removed", *(with_interval(cut, m, "score_90", 2) for m in methods)])
    return table(["set", "weights", *methods], rows)


def _view(results: StudyResults) -> str:
    if not _has(results, "explained"):
        return ""
    digits = {
        "correlation": 2,
        "static_correlation": 2,
        "reach": 1,
        "flow_reach": 1,
        "active_hops": 1,
        "flow_hops": 1,
    }
    digits |= {"saturated": 2, "gate": 2}
    rows = [
        [task, method, _explained(own, method), *(mean(own, method, name, d) for name, d in digits.items())]
        for task, own in _groups(results)
        for method in VIEWED
        if method in own.index
    ]
    headings = [
        "explained by the weights",
        "correlation, weights",
        "correlation, mean slopes",
        "mean lag, weights",
        "mean lag, flow",
        "active hops, weights",
    ]
    return table(["set", "method", *headings, "active hops, flow", "saturated", "memory gate"], rows)


def _explained(own: pd.DataFrame, method: str) -> str:
    """Return the share of the flow explained; far below 0 only the fact matters."""
    value = float(own["explained"][method])
    return "below -10" if value < -10 else f"{value:.2f}"


def _ablation(results: StudyResults) -> str:
    shown = ["test_error", "accuracy", "flow_alignment", "flow_hops", "alignment"]
    if results.ablation.empty or not set(shown) <= set(results.ablation):
        return ""
    records = results.ablation[["task", "method", *shown]].itertuples(index=False)
    rows = [
        [task, arm, *(f"{value:.{4 if n == 0 else 3}f}" for n, value in enumerate(values))]
        for task, arm, *values in records
    ]
    return table(["task", "arm", "test error", *shown[1:]], rows)


def _reach(results: StudyResults) -> str:
    if results.reach.empty:
        return ""
    means = reach_means(results.reach)
    rows = [[method, *(f"{value:.3f}" for value in row)] for method, row in means.iterrows()]
    return table(["method", *(f"lag {lag}" for lag in means.columns)], rows)


def _aims(results: StudyResults) -> str:
    return table(results.aims.columns, results.aims.to_numpy().tolist()) if len(results.aims) else ""


def _anchors(results: StudyResults) -> str:
    rows: list[Sequence[object]] = []
    for row in results.anchors.to_dict("records"):
        bounds = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
        rows.append([row["claim"], row["paper"], f"{row['ours']:.2f}{bounds}", row["agrees"], row["note"]])
    return table(["claim", "paper", "ours [95 %]", "agrees", "note"], rows) if rows else ""


SECTIONS: dict[str, Callable[[StudyResults], str]] = {
    "Test error at each method's own best strength": _errors,
    f"Structure ({' / '.join((*RIVALS, OURS))})": _structure,
    "Performance kept when weights are removed": _kept,
    "At equal sparsity: test error with 90 % of the recurrent weights removed": _pruned,
    "Active hops of the flow, of networks as good as L1 at its best": _hops,
    "With 8-bit weights": _rounded,
    "Closed loop: 0 is random actions, 1 the expert": _control,
    "What graphs say of the flow on data": _view,
    "Ablation: which part brings what": _ablation,
    "Reach: test error by lag": _reach,
    "Aims of the recommended recipe": _aims,
    "Beside the paper": _anchors,
}

__all__ = ["mean", "table", "to_markdown", "unit", "with_interval"]
