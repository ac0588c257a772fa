"""Interleaved timing: every contestant once a round, so that drift of the machine hits all alike."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch


def contest(
    contestants: dict[str, Callable[[], object]], *, seconds: float, least: int = 3
) -> dict[str, list[float]]:
    """Run all contestants in turn until the time is up; returns seconds of each round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    stop = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < least or time.perf_counter() < stop:
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return times


def quartiles(numbers: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    ordered = sorted(numbers)
    n = len(ordered)
    return ordered[n // 4], statistics.median(ordered), ordered[(3 * n) // 4]


def summary(times: dict[str, list[float]], peer: str) -> dict[str, tuple[float, float, float, float]]:
    """Return median seconds and median, lower and upper quartile of the ratio to the peer, round by round."""
    result = {}
    for name, own in times.items():
        low, middle, high = quartiles([a / b for a, b in zip(own, times[peer], strict=True)])
        result[name] = (statistics.median(own), middle, low, high)
    return result


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def spread(entry: tuple[float, float, float, float]) -> str:
    """Return median and quartiles of a ratio of `summary`, to be put into a table."""
    _, ratio, low, high = entry
    return f"{ratio:.3f} [{low:.3f}, {high:.3f}]"


def run(report: Callable[..., str], description: str | None, *, seconds: float) -> None:
    """Print a benchmark's report: what ``python benchmarks/NAME.py`` does.

    Parameters
    ----------
    report : callable
        Takes the seconds that it should last (about) and ``full=``; returns Markdown.
    description : str or None
        The benchmark's docstring.
    seconds : float
        Default duration.
    """
    lines = (description or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0] if lines else "")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"duration (default about {seconds:g})"
    )
    parser.add_argument("--full", action="store_true", help="the largest sizes too: minutes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"torch {torch.__version__}, {options.threads} threads, {os.cpu_count()} cores, load {load:.1f}\n")
    print(report(options.seconds, full=options.full), flush=True)
