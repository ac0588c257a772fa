"""Figures of a study, as data for the page's scripts: points with intervals, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hoplens.plots.curves import CHANCE, LOG_FROM
from hoplens.plots.frames import (
    Interval,
    fair_rows,
    hop_front,
    pruning_points,
    reach_points,
    sweep_points,
    weight_front,
)
from hoplens.plots.style import method_label, method_order, method_styles
from hoplens.reports.numbers import number, strength
from hoplens.reports.study import with_targets
from hoplens.reports.theme import mark
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.measures import kept_columns, measure_info

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ("test_error", "alignment", "active_hops", "accuracy", "resolvent_corr", "kept_70")
FEW_TASKS = 6  # of more tasks the first measures only: the others are in the table
SWEPT = ("test_error", "alignment")
Points = dict[str, list[tuple[float, Interval]]]


@dataclass(frozen=True)
class Figure:
    """One drawing: which script draws what data, and what a reader who does not see it is told."""

    key: str  # unique on the page
    kind: str
    title: str
    label: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Figures that belong together, with one legend."""

    key: str
    title: str
    text: str
    figures: list[Figure]
    methods: Iterable[str]

    @property
    def legend(self) -> list[tuple[str, Markup]]:
        """Names and marks of the methods shown."""
        return [(method_label(m), mark(style)) for m, style in method_styles(self.methods).items()]


def figure_groups(results: StudyResults) -> list[Group]:
    """Return all figures for which the study holds numbers."""
    networks = results.networks
    groups = [
        _comparison(with_targets(results.summary, networks)),
        *(_sweeps(networks, measure) for measure in SWEPT if _has(networks, measure)),
    ]
    if _has(networks, "test_error") and _has(networks, "active_hops"):
        groups.append(_hop_fronts(networks))
    if _has(networks, "test_error") and (columns := kept_columns(map(str, networks.columns))):
        groups.append(_weight_fronts(networks, columns))
    groups += [_pruning(results), _reach(results.reach)]
    return [group for group in groups if group.figures]


def _comparison(summary: pd.DataFrame) -> Group:
    measures = COMPARED if len(summary) and summary["task"].nunique() <= FEW_TASKS else COMPARED[:3]
    figures = [_dots(summary, measure) for measure in measures if _has(summary, measure)]
    text = (
        "Each method at its own best strength; dots are means over report seeds, bars their 95 % intervals. "
        "A dotted line marks the task’s own number of active hops."
    )
    return Group("comparison", "Every method on every task", text, figures, summary.get("method", ()))


def _dots(summary: pd.DataFrame, measure: str) -> Figure:
    info = measure_info(measure)
    tasks: list[dict[str, Any]] = []
    sentences = []
    for task, rows in _by_task(summary):
        by_method = {str(row["method"]): row for row in rows.to_dict("records")}
        values = [
            {
                "method": method,
                "mean": by_method[method][measure],
                "low": by_method[method].get(f"{measure}_low"),
                "high": by_method[method].get(f"{measure}_high"),
            }
            for method in method_order(by_method)
        ]
        tasks.append({"name": task, "target": _target(rows, measure), "rows": values})
        means = ", ".join(f"{method_label(v['method'])} {number(v['mean'])}" for v in values)
        sentences.append(f"{task}: {means}")
    x = {
        "name": info.label,
        "log": _spread([v["mean"] for task in tasks for v in task["rows"]], measure),
        "zero": info.better in ("lower", "target"),
        **_whole(measure),
    }
    label = f"{info.label}, mean by task and method. " + "; ".join(sentences) + "."
    return Figure(f"cmp-{measure}", "dots", info.label, label, {"x": x, "tasks": tasks})


def _target(rows: pd.DataFrame, measure: str) -> float | None:
    name = f"target_{measure}"
    return float(rows[name].iloc[0]) if name in rows.columns else None


def _sweeps(networks: pd.DataFrame, measure: str) -> Group:
    label = measure_info(measure).label
    axis = {"name": "strength of the penalty", "log": True}
    figures = [
        _curves(f"sweep-{measure}-{n}", task, sweep_points(rows, measure), axis, measure)
        for n, (task, rows) in enumerate(_by_task(networks))
    ]
    fair = fair_rows(networks, ["task", "method", "strength"])
    roles = set(fair["role"]) if "role" in fair else set()
    text = (
        f"Means over {next(iter(roles)) if len(roles) == 1 else 'all'} seeds with 95 % intervals. The dashed "
        "line across is training without a penalty; a hollow marker means that some networks diverged there "
        "and are not in the mean."
    )
    title = f"{label[0].upper()}{label[1:]} over the strength of the penalty"
    return Group(f"sweep-{measure}", title, text, figures, networks["method"])


def _hop_fronts(networks: pd.DataFrame) -> Group:
    figures = []
    for n, (task, rows) in enumerate(_by_task(networks)):
        lines, front = hop_front(rows)
        data = {
            "x": {"name": "active hops a pair", "zero": True},
            "y": {"name": measure_info("test_error").label, "log": True},
            "lines": lines,
            "front": front,
            "target": _target(rows, "active_hops"),
        }
        best = ", ".join(f"{number(y)} at {number(x, 2)}" for x, y in front) or "none"
        label = f"{task}: test error against active hops; the best trade-offs are {best}."
        figures.append(Figure(f"hops-{n}", "fronts", task, label, data))
    text = (
        "A marker is a method at one strength, the mean over seeds; a strength at which a network diverged "
        "has none. Lower left is better, up to the dotted line: the number of hops that the task needs. "
        "The grey line joins what nothing else beats in both."
    )
    return Group("front-hops", "Error against active hops", text, figures, networks["method"])


def _weight_fronts(networks: pd.DataFrame, columns: Sequence[str]) -> Group:
    figures = []
    for n, (task, rows) in enumerate(_by_task(networks)):
        lines = weight_front(rows, columns)
        data = {
            "x": {"name": "recurrent weights left (%)", "zero": True, "most": 100},
            "y": {"name": "test error after pruning", "log": True},
            "lines": lines,
        }
        best = "; ".join(
            f"{method_label(line['method'])} {number(p[1])} with {number(p[0], 2)} % left"
            for line in lines
            for p in line["points"][:1]
        )
        label = f"{task}: error of the best strength at each number of weights. {best}."
        figures.append(Figure(f"weights-{n}", "fronts", task, label, data))
    text = (
        "The error of a method's best strength with so many recurrent weights left; "
        "the smallest are removed at once, without retraining. Left and low is better."
    )
    return Group("front-weights", "Error against non-zero weights", text, figures, networks["method"])


def _pruning(results: StudyResults) -> Group:
    networks = _at_best_strength(results)
    columns = [c for c in kept_columns(map(str, networks.columns)) if _has(networks, c)]
    whole = Interval(1.0, 1.0, 1.0, 0, 0)
    axis = {"name": "recurrent weights removed (%)", "most": 100}
    figures = []
    for n, (task, rows) in enumerate(_by_task(networks) if columns else ()):
        points = {m: [(0.0, whole), *line] for m, line in pruning_points(rows, columns).items()}
        figures.append(_curves(f"prune-{n}", task, points, axis, "kept"))
    text = (
        "What is left of the performance when the smallest recurrent weights are removed at once, without "
        "retraining. Each method at its own best strength."
    )
    return Group("pruning", "Removing recurrent weights", text, figures, networks.get("method", ()))


def _reach(reach: pd.DataFrame) -> Group:
    axis = {"name": "lag of the signal (time steps)"}
    figures = [_curves("reach", "", reach_points(reach), axis, "test_error")] if len(reach) else []
    text = (
        "How far back a signal may lie. At each lag every method has the strength that did best on "
        "validation seeds."
    )
    return Group("reach", "Reach", text, figures, reach.get("method", ()))


def _curves(key: str, title: str, points: Points, x: dict[str, Any], measure: str) -> Figure:
    strengths = [at for line in points.values() for at, _ in line if at > 0]
    lines = []
    for method in method_order(points):
        line = points[method]
        across = bool(x.get("log")) and [at for at, _ in line] == [0.0] and bool(strengths)
        shown = [pair for pair in line if pair[0] > 0 or across or not x.get("log")]
        rows = [[at, p.mean, p.low, p.high, p.n, p.lost] for at, p in shown]
        lines.append({"method": method, "across": across, "points": rows})
    means = [p.mean for line in points.values() for _, p in line]
    name = "performance kept" if measure == "kept" else measure_info(measure).label
    level = {"value": CHANCE[measure][0], "text": CHANCE[measure][1]} if measure in CHANCE else None
    zero = measure in ("kept", "test_error")
    y = {"name": name, "log": _spread(means, measure), "zero": zero, **_whole(measure)}
    values = "; ".join(
        f"{method_label(m)} " + ", ".join(f"{number(p.mean)} at {strength(at)}" for at, p in line)
        for m, line in points.items()
    )
    label = f"{title + ': ' if title else ''}{name} over {x['name']}. {values}."
    return Figure(key, "curves", title, label, {"x": x, "y": y, "level": level, "lines": lines})


def _spread(means: Iterable[float], measure: str) -> bool:
    """Say whether an axis needs a log scale."""
    finite = [mean for mean in means if math.isfinite(mean)]
    low = min(finite, default=0.0)
    return measure_info(measure).better == "lower" and low > 0 and max(finite) > LOG_FROM / 2 * low


def _whole(measure: str) -> dict[str, float]:
    """Return the bound of measures that cannot pass 1: panels side by side then share their scale."""
    return {"most": 1.0} if measure == "kept" or measure_info(measure).better == "higher" else {}


def _at_best_strength(results: StudyResults) -> pd.DataFrame:
    """Return the networks of each task and method at the strength that the summary names."""
    networks, summary = results.networks, results.summary
    if not len(networks) or not len(summary):
        return networks.iloc[:0]
    chosen = {
        (task, method): float(value)
        for task, method, value in summary[["task", "method", "strength"]].itertuples(index=False)
    }
    rows = networks[["task", "method", "strength"]].itertuples(index=False)
    # the same number may have been written and read back between the two frames
    return networks[[math.isclose(chosen.get((t, m), math.nan), s, rel_tol=1e-9) for t, m, s in rows]]


def _by_task(networks: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(task), networks[networks["task"] == task]) for task in dict.fromkeys(networks["task"])]


def _has(frame: pd.DataFrame, column: str) -> bool:
    return column in frame.columns and bool(frame[column].notna().any())


__all__ = ["Figure", "Group", "figure_groups"]
