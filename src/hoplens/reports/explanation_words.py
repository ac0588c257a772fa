"""An explanation in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hoplens.analysis.attribution.explanation import Explanation

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


def opening(found: Explanation, sample: int) -> str:
    """Return what the output is, what it is at the baseline, and what becomes of the difference."""
    name = found.output_names[int(found.outputs[sample])]
    change, gap = float(found.difference[sample]), float(found.gap[sample])
    value, base = float(found.output[sample]), float(found.baseline_output[sample])
    start = f"Output {name} is {value:.4g}, and {base:.4g} at the baseline"
    if not bool(found.values[sample].any()):
        return f"{start}: no input is credited with anything."
    missing = float(found.relative_gap[sample])
    if missing > LARGE_GAP:
        said = f"The credits of the inputs do not add up to the change of {change:+.4g}"
        return f"{start}. {said}: {gap:+.2g} of it is missing, so they are not to be trusted here."
    exact = "" if missing < 5e-6 else f" but for {gap:+.2g}"
    shared = f"The change of {change:+.4g} is shared out as credits to the inputs, which add up to it"
    return f"{start}. {shared}{exact}."


def meaning(found: Explanation) -> str:
    """Return one sentence on what a credit is, and is not."""
    how = (
        "an average over orders in which the inputs come in"
        if bool((~found.spread.isnan()).any())
        else "a share"
    )
    return f"A credit is {how}, not what the output would lose without that input alone."


def timing(found: Explanation, sample: int) -> str:
    """Return one sentence on when the output was decided."""
    length = int(found.lengths[sample])
    size = found.values[sample, :length].abs().sum(1)
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


def lines(found: Explanation, sample: int, n: int) -> list[Line]:
    """Return the n largest contributions."""
    frame = found.top(n, sample=sample)
    levels = int(found.hops[0]) - int(found.lags[0])
    made = []
    for row in frame.to_dict("records"):
        lag, amount, spread = int(row["lag"]), float(row["contribution"]), float(row["spread"])
        made.append(
            Line(
                str(row["input"]),
                int(row["step"]),
                _lag(lag),
                str(levels + lag) if found.timed else f"from {levels + lag}",
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


def hop_rows(found: Explanation, sample: int) -> list[tuple[str, str, str, str]]:
    """Return hop, lag, signed sum and share of sizes of every hop that contributes.

    The lag is empty in a deep bidirectional network, whose walks go back and forth in time.
    """
    parts = found.by_hop[sample]
    size = parts.abs().sum(1)
    total = float(size.sum())
    return [
        (
            str(int(hop)),
            str(int(lag)) if found.timed else "",
            f"{float(part.sum()):+.3g}",
            f"{float(own) / total:.1%}",
        )
        for hop, lag, part, own in zip(found.hops, found.lags, parts, size, strict=True)
        if float(own) > 0
    ]


def unit_rows(found: Explanation, sample: int, n: int) -> list[tuple[str, str, str]]:
    """Return name, contribution and share of sizes of the n units that pass on most."""
    parts = found.by_unit[sample]
    total = float(parts.abs().sum()) or 1.0
    best = torch.argsort(parts.abs(), descending=True, stable=True)[:n].tolist()
    return [
        (found.unit_names[j], f"{float(parts[j]):+.3g}", f"{abs(float(parts[j])) / total:.1%}")
        for j in best
        if float(parts[j]) != 0
    ]


def _lag(lag: int) -> str:
    if lag == 0:
        return "the last step"
    return f"{lag} step{'s' if lag > 1 else ''} before the last"


__all__ = ["Line", "hop_rows", "lines", "meaning", "opening", "sentence", "timing", "unit_rows"]
