"""One training step of an ensemble: hoplens, its limit, plain PyTorch, JAX and the paper's way, side by side.

Four sizes (see contestants.py). On one thread: hoplens over the limit measured in the same run (aims 1.6,
1.25, 1.1, 1.1). On the whole machine: JAX over hoplens (aims 1.4, 1.4, 1.2, 1.2) and the paper's way over
hoplens (aims 20, 20, 8, 20). hoplens shards ensembles over one process a core; a peer has all cores to itself
and, in a row of its own, is sharded likewise. Every contestant is a process of its own; they take turns.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

from contest import quartiles, run, table
from contestants import SIZES

WORKER = Path(__file__).with_name("contestants.py")
TURN_SECONDS = 0.1  # a turn lasts about so long, or one step
PAUSE_SECONDS = 0.01  # lets the threads of the last contestant go to sleep
AIMS_LIMIT = {"a": 1.6, "b": 1.25, "c": 1.1, "d": 1.1}
AIMS_JAX = {"a": 1.4, "b": 1.4, "c": 1.2, "d": 1.2}
AIMS_PAPER = {"a": 20.0, "b": 20.0, "c": 8.0, "d": 20.0}
CORES = os.cpu_count() or 1


class Contestant:
    """One or several worker processes that step together."""

    def __init__(
        self, kind: str, size: str, *, shards: int = 1, threads: int = 1, once: bool = False
    ) -> None:
        self.once = once
        # every library gets as many threads as stated, whatever the shell's environment says
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.workers = [
            subprocess.Popen(
                [sys.executable, str(WORKER), kind, size, str(shard), str(shards), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for shard in range(shards)
        ]
        for worker in self.workers:
            if self._read(worker) != "ready":
                raise SystemExit(f"{kind} did not start")
        self.steps = 1
        if not once:
            self.run()  # compiles, allocates
            self.steps = max(1, round(TURN_SECONDS / self.run()))

    def run(self) -> float:
        """Run a turn; return the seconds a step, from start to the last worker's end."""
        begin = time.perf_counter()
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{self.steps}\n")
            worker.stdin.flush()
        for worker in self.workers:
            self._read(worker)
        return (time.perf_counter() - begin) / self.steps

    def stop(self) -> None:
        """End the workers."""
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()

    @staticmethod
    def _read(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()


def field(size: str) -> dict[str, Contestant]:
    """Start everybody who takes part at a size."""
    networks = SIZES[size][0]
    shards, threads = (CORES, 1) if networks >= CORES else (1, CORES)
    found = {
        "limit, one thread": Contestant("limit", size),
        "hoplens, one thread": Contestant("ours", size),
        "hoplens eager, one thread": Contestant("eager", size),
        "tidy PyTorch, one thread": Contestant("tidy", size),
        "hoplens, whole machine": Contestant("ours", size, shards=shards, threads=threads),
        "paper's way, whole machine": Contestant("paper", size, threads=CORES, once=size == "d"),
    }
    if shards > 1:
        found["paper's way, sharded"] = Contestant("paper", size, shards=shards)
    if importlib.util.find_spec("jax") and importlib.util.find_spec("optax"):
        found["JAX unrolled, whole machine"] = Contestant("jax-unrolled", size, threads=CORES)
        found["JAX scanned, whole machine"] = Contestant("jax-scan", size, threads=CORES)
        if shards > 1:
            found["JAX unrolled, sharded"] = Contestant("jax-unrolled", size, shards=shards)
    return found


def play(contestants: dict[str, Contestant], seconds: float) -> dict[str, list[float]]:
    """Let all take turns until the time is up, three rounds at least; slow ones play one round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    stop = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < stop:
        for name, contestant in contestants.items():
            if rounds and contestant.once:
                times[name].append(times[name][0])
                continue
            time.sleep(PAUSE_SECONDS)
            times[name].append(contestant.run())
        rounds += 1
    return times


def verdicts(size: str, times: dict[str, list[float]]) -> list[list[str]]:
    """Return the rows of the table of ratios: what, ratio with quartiles, aim, met."""
    fast, slow = times["hoplens, one thread"], times["hoplens, whole machine"]
    rows = []

    def add(
        name: str, over: list[float], under: list[float], *, most: float = 0.0, least: float = 0.0
    ) -> None:
        low, middle, high = quartiles([a / b for a, b in zip(over, under, strict=True)])
        aim = f"≤ {most:g}" if most else f"≥ {least:g}" if least else ""
        met = "yes" if (not most or middle <= most) and middle >= least else "no"
        rows.append([size, name, f"{middle:.2f} [{low:.2f}, {high:.2f}]", aim, met if aim else ""])

    add("hoplens / limit, one thread", fast, times["limit, one thread"], most=AIMS_LIMIT[size])
    jax = [name for name in times if name.startswith("JAX") and "whole" in name]
    if jax:
        best = min(jax, key=lambda name: quartiles(times[name])[1])
        add(f"{best.split(',')[0]} / hoplens, whole machine", times[best], slow, least=AIMS_JAX[size])
        if "JAX unrolled, sharded" in times:
            add("JAX unrolled, sharded / hoplens, whole machine", times["JAX unrolled, sharded"], slow)
    add(
        "paper's way / hoplens, whole machine",
        times["paper's way, whole machine"],
        slow,
        least=AIMS_PAPER[size],
    )
    if "paper's way, sharded" in times:
        add("paper's way, sharded / hoplens, whole machine", times["paper's way, sharded"], slow)
    return rows


def report(seconds: float = 120.0, *, full: bool = False, sizes: str = "abcd") -> str:
    """Return the tables in Markdown.

    Parameters
    ----------
    seconds : float
        About how long to measure; half of it goes into starting, compiling and the paper's way at size d.
    full : bool
        Five times as long.
    sizes : str, default all
        Which sizes.
    """
    steps, ratios = [], []
    each = seconds * (5 if full else 1) / (2 * len(sizes))
    for size in sizes:
        contestants = field(size)
        try:
            times = play(contestants, each)
        finally:
            for contestant in contestants.values():
                contestant.stop()
        base = quartiles(times["hoplens, one thread"])[1]
        for name, own in times.items():
            low, middle, high = quartiles(own)
            rounds = 1 if contestants[name].once else len(own)
            spread = f"{1e3 * middle:.2f} [{1e3 * low:.2f}, {1e3 * high:.2f}]"
            steps.append([size, name, spread, f"{middle / base:.2f}", str(rounds)])
        ratios += verdicts(size, times)
    note = (
        ""
        if any("JAX" in row[1] for row in ratios)
        else "\nJAX is not installed: that comparison is left out.\n"
    )
    return (
        "Sizes (E, H, L, B, I, O): "
        + ", ".join(f"{n} = {SIZES[n]}" for n in sizes)
        + "\n\n"
        + table(["size", "ratio", "median [quartiles]", "aim", "met"], ratios)
        + note
        + "\n"
        + table(["size", "contestant", "ms a step [quartiles]", "of hoplens, one thread", "rounds"], steps)
    )


if __name__ == "__main__":
    run(report, __doc__, seconds=120.0)
