"""Training steps of two checkouts in turns: what a change costs, at sizes a to d and for a GRU.

Usage: python benchmarks/before_after.py BEFORE AFTER [--sizes abcdg] [--turns 40]. BEFORE and AFTER are
folders of the repository at two commits (``git worktree add /tmp/before COMMIT``).

Each side is a process of its own on one thread that trains through ``hl.train`` alone, so that hardly any
inner name has to be the same on both sides. It waits in the call of ``progress``, every 25 steps, until it is
its turn. Who begins a pair is drawn; what counts is the median of the ratios. Size d takes minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from contest import quartiles, table
from contestants import DAMPING, LR, SIZES, STRENGTH

GRU = (16, 32, 20, 32, 6, 3)  # E, H, L, B, I, O: classes after the last step
CHUNK = 25  # steps between two calls of `progress`
SHORT = {"c": 5, "d": 1}  # fewer turns of sizes whose steps take long, as a share of 40
WITHIN = 1.03


def worker(size: str, steps: int) -> None:
    """Train, and report the seconds a step of every chunk on the word of the other process."""
    import torch

    import hoplens as hl
    from hoplens.training.recipes import PathwaySpec, Recipe, Term

    place = Path(os.environ["PYTHONPATH"]).resolve()
    if place not in Path(hl.__file__).resolve().parents:
        raise SystemExit(f"{hl.__file__} is not of {place}: another installation hides it")
    torch.set_num_threads(1)
    started = 0.0

    def turn(done: int, total: int) -> None:  # noqa: ARG001 - signature of progress
        nonlocal started
        if started:
            print(f"{(time.perf_counter() - started) / CHUNK}", flush=True)
        else:
            print("ready", flush=True)  # the first chunk allocates
        if not sys.stdin.readline().strip():
            os._exit(0)
        started = time.perf_counter()

    e, h, length, batch, i, o = GRU if size == "g" else SIZES[size]
    recipe = Recipe("hops", (Term(PathwaySpec("hops", damping=DAMPING)),))
    options = {
        "seeds": range(e),
        "strengths": [STRENGTH],
        "hidden": h,
        "batch": batch,
        "lr": LR,
        "steps": steps,
    }
    if size == "g":
        source = torch.Generator().manual_seed(0)
        sequences = list(torch.randn(8 * batch, length, i, generator=source))
        labels = torch.randint(o, (len(sequences),), generator=source)
        data = hl.data.from_sequences(sequences, labels.tolist(), form="class")
        getattr(hl, "train_sequences", hl.train)(data, recipe, cell="gru", progress=turn, **options)
        return
    task = hl.tasks.make("averaging", signal="on-off", modules=o, module_size=i // o, length=length)
    hl.train(task, recipe, progress=turn, **options)


class Side:
    """One checkout at one size, ready to run chunk after chunk."""

    def __init__(self, folder: Path, size: str, steps: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "src")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "worker", size, str(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit("a side ended before its time; its error stands above")
        return line

    def run(self) -> float:
        """Return the seconds a step of one chunk."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.read())

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(before: Path, after: Path, sizes: str, turns: int) -> str:
    """Return the table of ratios after / before in Markdown."""
    rows = []
    for size in sizes:
        pairs = max(3, turns * SHORT.get(size, 40) // 40)
        sides = {
            name: Side(folder, size, CHUNK * (pairs + 2)) for name, folder in (("b", before), ("a", after))
        }
        times: dict[str, list[float]] = {"b": [], "a": []}
        try:
            for _ in range(pairs):
                for name in random.Random(len(times["b"])).sample("ab", 2):
                    times[name].append(sides[name].run())
        finally:
            for side in sides.values():
                side.stop()
        low, middle, high = quartiles([a / b for a, b in zip(times["a"], times["b"], strict=True)])
        steps = [f"{1e3 * quartiles(times[name])[1]:.2f}" for name in "ba"]
        met = "yes" if middle <= WITHIN else "no"
        rows.append([size, *steps, f"{middle:.3f} [{low:.3f}, {high:.3f}]", str(pairs), met])
        print(rows[-1], file=sys.stderr, flush=True)
    return table(
        ["size", "before, ms a step", "after", "after / before [quartiles]", "pairs", "within 3 %"], rows
    )


def main() -> None:
    """Read the command line."""
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--sizes", default="abcdg")
    parser.add_argument("--turns", type=int, default=40)
    asked = parser.parse_args()
    print(compare(asked.before.resolve(), asked.after.resolve(), asked.sizes, asked.turns))


if __name__ == "__main__":
    main()
