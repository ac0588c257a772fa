"""The verdict: what the numbers say, in plain sentences, good or bad."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hoplens.plots.style import OURS, method_label
from hoplens.reports.numbers import count, listing, number, percent
from hoplens.reports.study import Duel, agreement, duels, means_over_tasks
from hoplens.studies.comparison.results import StudyResults

if TYPE_CHECKING:
    import pandas as pd

NAMED = 4  # tasks named in a sentence before it says how many more
NEAR = 0.01  # means that differ by less than this read as equal


@dataclass(frozen=True)
class Tile:
    """A number to see first: its value and what it is."""

    value: str
    label: str


def verdict(results: StudyResults) -> str:
    """Return one paragraph that says what the study found."""
    sentences = [
        *_on_error(duels(results)),
        *_on_means(results.summary),
        *_on_paper(results.anchors),
        *_on_aims(results.aims),
    ]
    return " ".join(sentences) or "This study holds no numbers to judge yet."


def tiles(results: StudyResults) -> list[Tile]:
    """Return the few numbers that sum up the study; those that are missing are left out."""
    shown = []
    fights = [duel for duel in duels(results) if duel.ratio > 0]
    if fights:
        shown.append(
            Tile(
                f"{number(_geometric([d.ratio for d in fights]), 2)} ×",
                "test error of the better of L1 and the paper's recipe",
            )
        )
    for measure, label in (
        ("alignment", "alignment with the task’s pathways"),
        ("kept_70", "kept with 70 % of recurrent weights removed"),
    ):
        mean = means_over_tasks(results.summary, measure).get(OURS)
        if mean is not None:
            shown.append(Tile(percent(mean) if measure == "kept_70" else number(mean, 2), label))
    if len(results.aims):
        shown.append(Tile(f"{_met(results.aims)} of {len(results.aims)}", "aims met"))
    return shown


def _on_error(fights: list[Duel]) -> list[str]:
    if not fights:
        return []
    wins = [d for d in fights if d.ratio < 1]
    losses = [d for d in fights if d.ratio > 1]
    where = "On the one task" if len(fights) == 1 else f"Over {len(fights)} tasks"
    sentences = [
        f"{where}, each method at the strength that did best on validation seeds, the {OURS} recipe has a "
        f"lower test error than the better of L1 and the paper’s recipe on {_of(len(wins), len(fights))}.",
        *_tested(fights),
    ]
    ratios = [d.ratio for d in fights if d.ratio > 0]
    if len(ratios) > 1:
        low, high = min(ratios), max(ratios)
        sentences.append(
            f"Its error is {number(_geometric(ratios), 2)} times theirs in the geometric mean, between "
            f"{number(low, 2)} and {number(high, 2)}."
        )
    elif ratios:
        sentences.append(f"Its error is {number(ratios[0], 2)} times that of {fights[0].reference}.")
    if losses:
        losses.sort(key=lambda d: -d.ratio)
        named = [f"{d.task} ({number(d.ratio, 2)} × {d.reference})" for d in losses[:NAMED]]
        more = [f"{len(losses) - NAMED} more"] if len(losses) > NAMED else []
        sentences.append(f"It does worse on {listing(named + more)}.")
    return sentences


def _tested(fights: list[Duel]) -> list[str]:
    tested = [d for d in fights if d.outcome != "untested"]
    if not tested:
        return []
    clear = sum(d.outcome == "better" for d in tested)
    against = sum(d.outcome == "worse" for d in tested)
    text = f"Paired by seed, the difference is clear in its favour on {_of(clear, len(tested))}"
    if against:
        text += f" and against it on {_of(against, len(tested))}"
    return [text + " (95 % interval without zero, p below 0.05)."]


def _on_means(summary: pd.DataFrame) -> list[str]:
    sentences = []
    for measure, start, show in (
        ("alignment", "Its pathways follow those of the tasks with a correlation of", lambda v: number(v, 2)),
        ("kept_70", "With 70 % of the recurrent weights removed at once it keeps", percent),
    ):
        means = means_over_tasks(summary, measure)
        others = {m: v for m, v in means.items() if m != OURS}
        if OURS not in means or not others:
            continue
        compared = listing([f"{show(v)} ({method_label(m)})" for m, v in others.items()])
        ahead = [m for m, v in others.items() if v > means[OURS] + NEAR]
        lead = (
            f"; {listing([method_label(m) for m in ahead])} {'does' if len(ahead) == 1 else 'do'} better"
            if ahead
            else ""
        )
        kept = " of its performance" if measure == "kept_70" else ""
        sentences.append(f"{start} {show(means[OURS])}{kept}, against {compared}{lead}.")
    return sentences


def _on_paper(anchors: pd.DataFrame) -> list[str]:
    if not len(anchors):
        return []
    judgements = [agreement(value) for value in anchors["agrees"]]
    counts = {word: judgements.count(word) for word in dict.fromkeys(["agrees", "disagrees", *judgements])}
    verbs = {"agrees": ("agrees", "agree"), "disagrees": ("disagrees", "disagree")}
    parts = [
        f"{n or 'none'} {verbs[word][n != 1]}"
        if word in verbs
        else f"{n} {'is' if n == 1 else 'are'} marked “{word}”"
        for word, n in counts.items()
    ]
    return [f"Of {count(len(anchors), 'number')} checked against the paper, {listing(parts)}."]


def _on_aims(aims: pd.DataFrame) -> list[str]:
    return (
        [f"{_met(aims)} of {count(len(aims), 'aim')} {'is' if _met(aims) == 1 else 'are'} met."]
        if len(aims)
        else []
    )


def _met(aims: pd.DataFrame) -> int:
    return sum(bool(met) for met in aims["met"])


def _geometric(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _of(part: int, whole: int) -> str:
    if part == whole:
        return "it" if whole == 1 else "both" if whole == 2 else f"all {whole}"
    return "none" if part == 0 else f"{part} of {whole}"
