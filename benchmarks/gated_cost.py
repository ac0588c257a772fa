"""What penalties on recurrent cells cost: milliseconds of a training step beside one without penalty."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import hoplens as hl
from hoplens.data.sets import SequenceData, Split
from hoplens.penalties.flow import FlowSpec
from hoplens.training.recipes import PathwaySpec, Term
from hoplens.training.settings import Network, Settings
from hoplens.training.trainer import Trainer

NETWORKS, HIDDEN, BATCH, INPUTS, OUTPUTS = 48, 32, 32, 12, 9
ROUNDS, STEPS = 15, 3  # paired rounds; steps timed in each

RECIPES = {
    "none": hl.recipes.none(),
    "L1": hl.recipes.l1(),
    "hops, at origin": hl.Recipe("hops", (Term(PathwaySpec("hops")),)),
    "hops, at mean": hl.Recipe("hops", (Term(PathwaySpec("hops")),)),
    "paper (sum), at origin": hl.recipes.paper(),
    "along 2 sequences": hl.Recipe("flow", (Term(FlowSpec(sequences=2)),)),
    "along 4 sequences": hl.Recipe("flow", (Term(FlowSpec(sequences=4)),)),
    "along 8 sequences": hl.Recipe("flow", (Term(FlowSpec(sequences=8)),)),
}


def random_data(length: int) -> SequenceData:
    """A classification set of noise."""
    source = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        inputs = torch.randn(count, length, INPUTS, generator=source)
        targets = torch.randint(OUTPUTS, (count,), generator=source)
        return Split(inputs, targets, torch.full((count,), length))

    names = tuple(f"x{i}" for i in range(INPUTS)), tuple(f"y{o}" for o in range(OUTPUTS))
    zeros, ones = torch.zeros(INPUTS), torch.ones(INPUTS)
    return SequenceData(
        "noise", "class", split(256), split(8), split(8), OUTPUTS, *names, zeros, ones, "", "", ""
    )


def measure(cell: str, length: int) -> dict[str, np.ndarray]:
    """Milliseconds a step of every recipe, in rounds that take turns."""
    data, loops = random_data(length), {}
    for name, recipe in RECIPES.items():
        at = "mean" if name.endswith("mean") else None
        leak = 0.5 if cell == "leaky" else 1.0
        settings = Settings(hidden=HIDDEN, steps=1000, batch=BATCH, cell=cell, at=at, leak=leak)
        networks = [Network(recipe, 1e-4, seed) for seed in range(NETWORKS)]
        loops[name] = Trainer(data, networks, settings)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(ROUNDS + 1):
        for name, loop in loops.items():
            begin = time.perf_counter()
            for step in range(STEPS):
                loop.step(step, *loop.data.batch(step))
            if turn:  # the first round warms up
                times[name].append((time.perf_counter() - begin) / STEPS * 1e3)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    """Print one table a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[24, 64])
    parser.add_argument("--cells", nargs="*", default=["tanh", "leaky", "gru", "lstm"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{NETWORKS} networks, {HIDDEN} units, batch {BATCH}, {INPUTS} inputs, {OUTPUTS} outputs, "
        f"one thread; median of {ROUNDS} paired rounds: ms a step, then multiples of it"
    )
    for length in options.lengths:
        print(f"\n| {length} steps | {' | '.join(RECIPES)} |\n|---|{'---|' * len(RECIPES)}")
        for cell in options.cells:
            times = measure(cell, length)
            cells = [f"{np.median(times['none']):.1f} ms"]
            cells += [f"{np.median(times[n] / times['none']):.2f}" for n in list(RECIPES)[1:]]
            print(f"| {cell} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
