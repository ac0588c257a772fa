"""Figures of the report: small panels, each an SVG of its own, so that they flow to any width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup
from matplotlib.axes import Axes

from hoplens.hops import HopMaps
from hoplens.plots.comparison import comparison_height, plot_comparison
from hoplens.plots.curves import plot_pruning, plot_reach, plot_strength_sweep
from hoplens.plots.frames import Interval, fair_rows, pruning_points, reach_points, sweep_points
from hoplens.plots.maps import hops_in_own_figure
from hoplens.plots.measures import kept_columns, measure_info, method_label, method_order
from hoplens.plots.style import COLUMN, method_styles, new_axes
from hoplens.report.numbers import listing, number, strength
from hoplens.report.study import StudyLike, with_targets
from hoplens.report.svg import inline_svg
from hoplens.report.theme import mark

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ("test_mse", "alignment", "active_hops", "accuracy", "resolvent_corr", "kept_70")
FEW_TASKS = 6  # of more tasks the first measures only: the others are in the table
SWEPT = ("test_mse", "alignment")
CURVE_HEIGHT = 2.3
MAP_WIDTH = 4.0
TARGET = "target"
Points = dict[str, list[tuple[float, Interval]]]


@dataclass(frozen=True)
class Panel:
    """One drawing with a heading, and a line below it."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Panels that belong together."""

    key: str
    title: str
    text: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, Markup], ...] = ()
    wide: bool = False


def figure_groups(results: StudyLike) -> list[Group]:
    """Return all figures for which the study holds numbers."""
    groups = [
        _comparison(with_targets(results.summary, results.networks)),
        *(_sweeps(results.networks, measure) for measure in SWEPT),
        _pruning(results),
        _maps(results),
        _reach(results.reach),
    ]
    return [group for group in groups if group is not None and group.panels]


def _comparison(summary: pd.DataFrame) -> Group | None:
    if not len(summary):
        return None
    methods = method_order(summary["method"])
    tasks = list(dict.fromkeys(summary["task"]))
    panels = []
    for measure in COMPARED if len(tasks) <= FEW_TASKS else COMPARED[:3]:
        if not _has(summary, measure):
            continue
        ax = new_axes(COLUMN, comparison_height(len(tasks), len(methods)))
        plot_comparison(summary, measure, ax=ax)
        panels.append(
            _panel(ax, measure_info(measure).label, f"cmp-{measure}", _say_summary(summary, measure))
        )
    text = (
        "Each method at its own best strength; dots are means over report seeds, bars their 95 % intervals. "
        "A dotted line marks the task’s own number of active hops."
    )
    return Group("comparison", "Every method on every task", text, tuple(panels), _legend(methods))


def _sweeps(networks: pd.DataFrame, measure: str) -> Group | None:
    if not len(networks) or not _has(networks, measure):
        return None
    label = measure_info(measure).label
    panels = [
        _curve(
            str(task),
            f"sweep-{measure}-{n}",
            partial(plot_strength_sweep, own, measure),
            f"{label} over strength",
            sweep_points(own, measure),
            lambda x: f"strength {strength(x)}" if x else "",
        )
        for n, (task, own) in enumerate(_by_task(networks))
    ]
    seeds = (
        "report seeds"
        if len(fair_rows(networks, ["task", "method", "strength"])) < len(networks)
        else "all seeds"
    )
    text = (
        f"Means over {seeds} with 95 % intervals. The dashed line across is training without a penalty; a "
        "hollow marker means that some networks diverged there and are not in the mean."
    )
    title = f"{label[0].upper()}{label[1:]} over the strength of the penalty"
    return Group(f"sweep-{measure}", title, text, tuple(panels), _legend(networks["method"]))


def _pruning(results: StudyLike) -> Group | None:
    networks = _at_best_strength(results)
    columns = [c for c in kept_columns(map(str, networks.columns)) if _has(networks, c)]
    if not len(networks) or not columns:
        return None
    panels = [
        _curve(
            str(task),
            f"prune-{n}",
            partial(plot_pruning, own),
            "performance kept after removing recurrent weights",
            pruning_points(own, columns),
            lambda x: f"{x:.0f} % removed",
        )
        for n, (task, own) in enumerate(_by_task(networks))
    ]
    text = (
        "What is left of the performance when the smallest recurrent weights are removed at once, without "
        "retraining. Each method at its own best strength."
    )
    return Group("pruning", "Removing recurrent weights", text, tuple(panels), _legend(networks["method"]))


def _reach(reach: pd.DataFrame) -> Group | None:
    if not len(reach):
        return None
    panel = _curve(
        "",
        "reach",
        partial(plot_reach, reach),
        "test error over the lag of the signal",
        reach_points(reach),
        lambda x: f"lag {x:g}",
    )
    text = (
        "How far back a signal may lie. At each lag every method has the strength that did best on "
        "validation seeds."
    )
    return Group("reach", "Reach", text, (panel,), _legend(reach["method"]))


def _maps(results: StudyLike) -> Group | None:
    examples = dict(results.examples)
    target = examples.pop(TARGET, None)
    panels, tasks = [], {str(task): None for task, _ in examples.values()}
    if target is not None:
        panels.append(_map_panel("the task itself", "map-target", target))
    for n, method in enumerate(method_order(examples)):
        panels.append(_map_panel(method_label(method), f"map-{n}", examples[method][1]))
    text = (
        f"Hop maps of one network of each method on {listing(list(tasks)) or 'one task'}: a row is a hop "
        "length (its lag in brackets), a column an input-output pair. Orange is positive, blue negative; the "
        "scale of each panel is its own largest weight."
    )
    return Group("maps", "Where the pathways run", text, tuple(panels), wide=True)


def _map_panel(title: str, prefix: str, maps: HopMaps) -> Panel:
    ax = hops_in_own_figure(maps, MAP_WIDTH)
    values = maps.values[(0,) * len(maps.batch_shape)].abs()  # the network that is drawn
    strongest = int(maps.hops[int(values.sum(dim=(-2, -1)).argmax())])
    said = (
        f"{title}: hops {int(maps.hops[0])} to {int(maps.hops[-1])}, most pathway weight on hop {strongest}."
    )
    return _panel(ax, title, prefix, f"Hop maps of {said}")


def _curve(
    title: str,
    prefix: str,
    draw: Callable[..., Axes],
    what: str,
    points: Points,
    place: Callable[[float], str],
) -> Panel:
    ax = new_axes(COLUMN, CURVE_HEIGHT)
    draw(ax=ax)
    said = [
        f"{method_label(method)} " + ", ".join(f"{number(p.mean)} {_at(place(x))}".strip() for x, p in line)
        for method, line in points.items()
    ]
    start = f"{title}: {what}" if title else what
    return _panel(ax, title, prefix, f"{start}. " + "; ".join(said) + ".")


def _at(place: str) -> str:
    return f"at {place}" if place else ""


def _panel(ax: Axes, title: str, prefix: str, label: str) -> Panel:
    figure = ax.get_figure()
    return Panel(title, inline_svg(figure, label=label, prefix=prefix))  # type: ignore[arg-type]


def _say_summary(summary: pd.DataFrame, measure: str) -> str:
    parts = []
    for task in dict.fromkeys(summary["task"]):
        rows = summary[summary["task"] == task]
        values = [
            f"{method_label(str(method))} {number(float(value))}"
            for method, value in rows[["method", measure]].itertuples(index=False)
        ]
        parts.append(f"{task}: {', '.join(values)}")
    return f"{measure_info(measure).label}, mean by task and method. " + "; ".join(parts) + "."


def _at_best_strength(results: StudyLike) -> pd.DataFrame:
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
    return [(task, networks[networks["task"] == task]) for task in dict.fromkeys(networks["task"])]


def _has(frame: pd.DataFrame, column: str) -> bool:
    return column in frame.columns and bool(frame[column].notna().any())


def _legend(methods: Iterable[str]) -> tuple[tuple[str, Markup], ...]:
    return tuple((method_label(m), mark(style)) for m, style in method_styles(methods).items())


__all__ = ["Group", "Panel", "figure_groups"]
