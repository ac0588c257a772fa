"""An explanation in words, and its page: one file that needs nothing else."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from hoplens.analysis.attribution.explanation import Explanation
from hoplens.files import write_atomically
from hoplens.reports.partners import Together
from hoplens.reports.rendering import render
from hoplens.reports.svg import inline_svg, page_drawing

LARGE_GAP = 0.05  # share from which credits that do not add up are called that


@dataclass(frozen=True)
class Line:
    """One contribution, ready to print."""

    input: str
    step: int
    when: str
    hop: str
    value: str
    baseline: str
    contribution: str
    spread: str
    share: str
    negative: bool


def opening(why: Explanation, sample: int) -> str:
    """Return what the output is, what it is at the baseline, and what becomes of the difference."""
    name = why.output_names[int(why.outputs[sample])]
    change, gap = float(why.difference[sample]), float(why.gap[sample])
    value, base = float(why.output[sample]), float(why.baseline_output[sample])
    start = f"Output {name} is {value:.4g}, and {base:.4g} at the baseline"
    if not bool(why.values[sample].any()):
        return f"{start}: no input is credited with anything."
    missing = float(why.relative_gap[sample])
    if missing > LARGE_GAP:
        lack = f"The credits of the inputs do not add up to the change of {change:+.4g}"
        return f"{start}. {lack}: {gap:+.2g} of it is missing, so they are not to be trusted here."
    exact = "" if missing < 5e-6 else f" but for {gap:+.2g}"
    shared = f"The change of {change:+.4g} is shared out as credits to the inputs, which add up to it"
    return f"{start}. {shared}{exact}."


def meaning(why: Explanation) -> str:
    """Return one sentence on what a credit is, and is not."""
    how = (
        "an average over orders in which the inputs come in"
        if bool((~why.spread.isnan()).any())
        else "a share"
    )
    return f"A credit is {how}, not what the output would lose without that input alone."


def timing(why: Explanation, sample: int) -> str:
    """Return one sentence on when the output was decided."""
    length = int(why.lengths[sample])
    size = why.values[sample, :length].abs().sum(1)
    total = float(size.sum())
    if total == 0:
        return "No step is credited with anything."
    share, order = size / total, size.argsort(descending=True, stable=True).tolist()
    covered, steps = 0.0, []
    for step in order:
        steps.append(step)
        covered += float(share[step])
        if covered >= 0.5:
            break
    steps.sort()
    holds = f"{min(covered, 1.0):.0%} of all credits by size"
    if len(steps) == 1:
        when = _lag(length - 1 - steps[0])
        return f"Step {steps[0]} alone ({when}) holds {holds}."
    listed = ", ".join(map(str, steps[:-1])) + f" and {steps[-1]}"
    return f"Steps {listed} of {length} hold {holds}."


def lines(why: Explanation, sample: int, n: int) -> list[Line]:
    """Return the n largest contributions."""
    frame = why.top(n, sample=sample)
    levels = int(why.hops[0]) - int(why.lags[0])
    made = []
    for row in frame.to_dict("records"):
        lag, amount, spread = int(row["lag"]), float(row["contribution"]), float(row["spread"])
        made.append(
            Line(
                str(row["input"]),
                int(row["step"]),
                _lag(lag),
                str(levels + lag) if why.timed else f"from {levels + lag}",
                f"{float(row['value']):.3g}",
                f"{float(row['baseline']):.3g}",
                f"{amount:+.3g}",
                "" if math.isnan(spread) else f"{spread:.2g}",
                f"{float(row['share']):.1%}",
                amount < 0,
            )
        )
    return made


def sentence(line: Line) -> str:
    """Return a contribution as a sentence."""
    credit = line.contribution + (f", spread {line.spread} over orders" if line.spread else "")
    return (
        f"{line.input} at step {line.step} ({line.when}, hop {line.hop}) is {line.value} in place of "
        f"{line.baseline} and is credited with {credit} ({line.share} of all credits by size)"
    )


def hop_rows(why: Explanation, sample: int) -> list[tuple[str, str, str, str]]:
    """Return hop, lag (empty where walks go back and forth in time), signed sum and share of every hop."""
    parts = why.by_hop[sample]
    size = parts.abs().sum(1)
    total = float(size.sum())
    return [
        (
            str(int(hop)),
            str(int(lag)) if why.timed else "",
            f"{float(part.sum()):+.3g}",
            f"{float(amount) / total:.1%}",
        )
        for hop, lag, part, amount in zip(why.hops, why.lags, parts, size, strict=True)
        if float(amount) > 0
    ]


def unit_rows(why: Explanation, sample: int, n: int) -> list[tuple[str, str, str]]:
    """Return name, contribution and share of sizes of the n units that pass on most."""
    parts = why.by_unit[sample]
    total = float(parts.abs().sum()) or 1.0
    best = torch.argsort(parts.abs(), descending=True, stable=True)[:n].tolist()
    return [
        (why.unit_names[j], f"{float(parts[j]):+.3g}", f"{abs(float(parts[j])) / total:.1%}")
        for j in best
        if float(parts[j]) != 0
    ]


def _lag(lag: int) -> str:
    if lag == 0:
        return "the last step"
    return f"{lag} step{'s' if lag > 1 else ''} before the last"


def write_page(
    why: Explanation,
    path: str | os.PathLike[str],
    *,
    sample: int = 0,
    title: str = "",
    together: Together | None = None,
) -> Path:
    """Write one sample's explanation as an HTML file without scripts."""
    return write_atomically(path, render_page(why, sample=sample, title=title, together=together).encode())


def render_page(
    why: Explanation, *, sample: int = 0, n: int = 15, title: str = "", together: Together | None = None
) -> str:
    """Return the page as HTML text; its tables have ``n`` rows; ``together`` of `acting_together`."""
    when = timing(why, sample)
    with page_drawing():
        figure = why.plot(sample=sample).get_figure(root=True)
        assert figure is not None
        picture = inline_svg(figure, label=f"Contributions by time step and input. {when}", prefix="map")
    return render(
        "explanation.html.j2",
        title=title or why.label,
        output=why.output_names[int(why.outputs[sample])],
        opening=opening(why, sample),
        meaning=meaning(why),
        timing=when,
        map=picture,
        spread=bool((~why.spread[sample].isnan()).any()),
        straight=why.timed,
        top=lines(why, sample, n),
        together=together,
        hops=hop_rows(why, sample),
        units=unit_rows(why, sample, n),
        label=why.label,
        method=why.method,
        gap=f"{float(why.relative_gap[sample]):.1e}",
    )


__all__ = [
    "Line",
    "hop_rows",
    "lines",
    "meaning",
    "opening",
    "render_page",
    "sentence",
    "timing",
    "unit_rows",
    "write_page",
]
