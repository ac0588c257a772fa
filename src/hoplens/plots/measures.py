"""What the measures of a study are called, which way is better, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

METHODS = ("none", "L2", "L1", "R-RNN", "recommended")
OURS = "recommended"
PAPER = "R-RNN"
REFERENCES = ("L1", PAPER)  # what the recommended recipe has to beat


@dataclass(frozen=True)
class Measure:
    """A number that describes a trained network.

    Attributes
    ----------
    name : str
        Column in a study's frames.
    label : str
        Short name for axes and table heads.
    better : {"lower", "higher", "target", "none"}
        Which way is better; "target" is closer to the task's own number, "none" says nothing.
    meaning : str
        One or two plain sentences.
    """

    name: str
    label: str
    better: Literal["lower", "higher", "target", "none"]
    meaning: str


_KNOWN = (
    Measure(
        "test_mse",
        "test error",
        "lower",
        "Mean squared error on unseen sequences as a share of the targets' variance: 0 is perfect, 1 is no "
        "better than always predicting the mean.",
    ),
    Measure(
        "accuracy",
        "accuracy",
        "higher",
        "Share of outputs on the right side of zero, between 0 and 1; guessing gives 0.5.",
    ),
    Measure(
        "resolvent_corr",
        "R_io correlation",
        "higher",
        "Correlation of the resolvent R_io, all hops of the normalised network added up, with the task's "
        "ideal input-output map.",
    ),
    Measure(
        "weight_corr",
        "W_rec correlation",
        "none",
        "Correlation of the map that can be read off single recurrent weights with the task's ideal "
        "input-output map; what one sees without following pathways.",
    ),
    Measure(
        "active_hops",
        "active hops",
        "target",
        "Mean number of hop lengths per input-output pair that carry more than a tenth of the network's "
        "largest pathway weight. Best is the task's own number.",
    ),
    Measure(
        "alignment",
        "alignment",
        "higher",
        "Correlation of the network's hop maps with the task's own over all cells (hop, output, input): "
        "whether the right input reaches the right output after the right delay.",
    ),
    Measure(
        "temporal_sparsity",
        "temporal sparsity",
        "none",
        "Gini coefficient of a pair's pathway weight over hop lengths: 0 is spread evenly, 1 is all on one "
        "hop. The right value depends on the task.",
    ),
    Measure(
        "signal_share",
        "signal share",
        "higher",
        "Part of all pathway weight that lies on the delays at which the input carries signal.",
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _KNOWN}


def measure_info(name: str) -> Measure:
    """Return the description of a measure; unknown names describe themselves.

    Parameters
    ----------
    name : str
        A column such as ``test_mse`` or ``kept_70``.
    """
    if name in MEASURES:
        return MEASURES[name]
    share = kept_share(name)
    if share is not None:
        return Measure(
            name,
            f"kept at {share}\u00a0%",
            "higher",
            "Share of the performance (the explained part of the targets' variance) that is left after the "
            f"smallest {share} % of the recurrent weights are removed at once, without retraining.",
        )
    return Measure(name, name.replace("_", " "), "none", "")


def kept_share(name: str) -> int | None:
    """Return 70 for ``kept_70``, None for a column of another kind."""
    found = re.fullmatch(r"kept_(\d{1,3})", str(name))
    return int(found.group(1)) if found else None


def kept_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns ``kept_10 .. kept_90`` among the given ones, by rising share removed."""
    found = [(share, name) for name in columns if (share := kept_share(name)) is not None]
    return [name for _, name in sorted(found)]


def method_label(method: str) -> str:
    """Return the name of a method as readers see it."""
    return "no penalty" if method == "none" else method


def method_order(methods: Iterable[str]) -> list[str]:
    """Return the distinct methods: the known ones in their fixed order, then the others as they came."""
    distinct = list(dict.fromkeys(str(method) for method in methods))
    return [m for m in METHODS if m in distinct] + [m for m in distinct if m not in METHODS]


__all__ = [
    "MEASURES",
    "METHODS",
    "OURS",
    "PAPER",
    "REFERENCES",
    "Measure",
    "kept_columns",
    "kept_share",
    "measure_info",
    "method_label",
    "method_order",
]
