"""Tables of the report: frames turned into the texts of cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from hoplens.plots.style import method_label, method_order, method_styles
from hoplens.reports.numbers import MISSING, count, interval, number, strength
from hoplens.reports.study import lost_share
from hoplens.reports.theme import mark
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.measures import BUILT_IN, MEASURES, Measure, kept_columns, kept_share, measure_info

if TYPE_CHECKING:
    import pandas as pd

KEPT_SHOWN = ("kept_70",)  # the curves show the others


class MeanCell(NamedTuple):
    """A mean with its interval; ``exact`` is the number in full."""

    text: str
    interval: str
    exact: str
    best: bool


class Row(NamedTuple):
    """A method on a task."""

    method: str
    mark: Markup
    strength: str
    n: str
    diverged: int
    cells: list[MeanCell]


class Block(NamedTuple):
    """The rows of one task."""

    task: str
    note: str
    rows: list[Row]


class Table(NamedTuple):
    """Methods against measures, task by task."""

    measures: list[Measure]
    blocks: list[Block]


def summary_table(summary: pd.DataFrame) -> Table:
    """Return the means and intervals of every method on every task, of measures that have numbers."""
    if not len(summary):
        return Table([], [])
    kept = kept_columns(map(str, summary.columns))
    others = [n for n in map(str, summary.columns) if f"{n}_low" in summary.columns and n not in kept]
    listed = dict.fromkeys((*(measure.name for measure in BUILT_IN), *KEPT_SHOWN, *others))
    names = [n for n in listed if n in summary.columns and summary[n].notna().any()]
    styles = method_styles(summary["method"])
    blocks = []
    for task in dict.fromkeys(summary["task"]):
        rows = {str(row["method"]): row for row in records(summary[summary["task"] == task])}
        target = _float(next(iter(rows.values())).get("target_active_hops"))
        winners = {name: _best(rows, name, target) for name in names}
        lines = [
            Row(
                method_label(method),
                mark(styles[method]),
                strength(rows[method].get("strength")) if method != "none" else MISSING,
                number(_whole(rows[method].get("n"))),
                _whole(rows[method].get("diverged")) or 0,
                [_cell(rows[method], name, method in winners[name]) for name in names],
            )
            for method in method_order(rows)
        ]
        note = f"{number(target)} active hops in the task itself" if math.isfinite(target) else ""
        blocks.append(Block(str(task), note, lines))
    return Table([measure_info(name) for name in names], blocks)


def _cell(row: dict[str, Any], name: str, best: bool) -> MeanCell:
    value = _float(row.get(name))
    return MeanCell(
        number(value), interval(row.get(f"{name}_low"), row.get(f"{name}_high")), repr(value), best
    )


def _best(rows: dict[str, dict[str, Any]], name: str, target: float) -> set[str]:
    """Return the methods whose mean reads as the best of the task; none where no way is better.

    A method that lost a larger share of its networks than another is not the best.
    """
    better = measure_info(name).better
    values = {m: v for m, row in rows.items() if math.isfinite(v := _float(row.get(name)))}
    if better == "none" or len(values) < 2 or (better == "target" and not math.isfinite(target)):
        return set()
    if better == "target":
        score = {m: abs(v - target) for m, v in values.items()}
    else:
        score = {m: v if better == "lower" else -v for m, v in values.items()}
    lost = {m: lost_share(rows[m]) for m in values}
    winner = min(score, key=lambda m: (lost[m], score[m]))
    # means that read the same in the table are not told apart by digits that it does not show
    best = {m for m in values if lost[m] == lost[winner] and number(values[m]) == number(values[winner])}
    return best if len(best) < len(values) else set()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame by the names of its columns."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def network_notes(networks: pd.DataFrame) -> list[str]:
    """Say how many networks there are, in which role, and how many diverged."""
    if not len(networks):
        return []
    notes = [f"{count(len(networks), 'network')} trained"]
    if "role" in networks.columns:
        roles = networks["role"].value_counts()
        notes[0] += " (" + ", ".join(f"{n:,} {role}" for role, n in roles.items()) + ")"
    if "diverged_at" in networks.columns:
        lost = networks[networks["diverged_at"] >= 0]
        by_method = ", ".join(
            f"{method_label(str(m))} {n:,}" for m, n in lost["method"].value_counts().items()
        )
        notes.append(f"{len(lost):,} diverged ({by_method})" if len(lost) else "none diverged")
    return notes


def definitions(results: StudyResults) -> list[Measure]:
    """Return the measures that the study reports, with their meanings."""
    columns = list(dict.fromkeys(map(str, [*results.summary.columns, *results.networks.columns])))
    known = [measure for measure in BUILT_IN if measure.name in columns]
    added = [measure_info(name) for name in columns if name not in MEASURES.built_in and not kept_share(name)]
    known += [measure for measure in added if measure.meaning]
    if kept_columns(columns):
        meaning = (
            "Share of the performance (the explained part of the targets' variance) that is left after the "
            "smallest p % of the recurrent weights are removed at once, without retraining: 1 is all of it."
        )
        known.append(Measure("kept", "kept at p %", "higher", meaning))
    return known


def plain_rows(frame: pd.DataFrame) -> list[list[str]]:
    """Return a frame as rows of texts, its columns' names first."""
    names = [measure_info(str(name)).label for name in frame.columns]
    return [names, *([number(value) for value in row] for row in frame.itertuples(index=False))]


def _float(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    size = _float(value)
    return int(size) if math.isfinite(size) else None


__all__ = [
    "definitions",
    "network_notes",
    "plain_rows",
    "records",
    "summary_table",
]
