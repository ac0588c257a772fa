"""How far back a linear recurrent unit learns to look: subtraction at lags 100 and 500.

Every step carries noise of the signal's size, so that a network must keep each of the last inputs apart.
At lag 500 the task has two inputs: 501 delays of one signal ask for H > 250.
"""

from __future__ import annotations

import time

import torch

import hoplens as hl

RUNS = (
    # lag, modules, module size, hidden, steps, batch
    (100, 4, 4, 192, 1500, 64),
    (500, 2, 1, 384, 3000, 128),
)


def main() -> None:
    """Train and print a row for each run."""
    torch.set_num_threads(1)
    print("| lag | inputs | H | steps | batch | error, share of the target's variance | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for lag, modules, size, hidden, steps, batch in RUNS:
        task = hl.tasks.make(
            "subtraction", signal="sparse", lag=lag, length=lag + 1, modules=modules, module_size=size
        )
        start = time.perf_counter()
        result = hl.train(task, "none", cell="lru", hidden=hidden, steps=steps, batch=batch)
        seconds = time.perf_counter() - start
        error = float(result.metrics["test_error"].iloc[0])
        print(f"| {lag} | {task.n_inputs} | {hidden} | {steps} | {batch} | {error:.3f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
