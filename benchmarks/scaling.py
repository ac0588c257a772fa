"""What training costs: fits the cost model of `costs.py` and checks it on sizes that it has not seen.

Trainings of random sizes (networks, hidden units, time steps, inputs, outputs, batch, seeds, recipes) are
timed in turn, on one thread, by processor time; the fastest round of each counts. Two thirds fit the model, a
third checks it. Then whole trainings and a table of the cost of one network. Prints the line for costs.py.
"""

from __future__ import annotations

import random
import time
from dataclasses import astuple, fields, replace

import numpy as np
import torch
from contest import run, table
from costs import (
    Machine,
    StepTimer,
    calibrate,
    fit_times,
    predict_seconds,
    work_of_step,
    work_of_test,
)

from hoplens import recipes
from hoplens.data.streams import CHUNK
from hoplens.data.tasks import make
from hoplens.training.evaluation import evaluate
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

SEED = 1
COUNTS, LARGEST = (1, 8, 32, 96), 4096  # networks a batch in the price list, and most units in all
CASES, ROUNDS, HELD_OUT = 90, 3, 3  # every third case is held out
STATE_BYTES, MULTIPLICATIONS = 16e6, 1e8  # the largest training timed
AIM = 0.2
MIXES = {
    "none": (recipes.none(),),
    "L1": (recipes.l1(),),
    "paper": (recipes.paper(),),
    "recommended": (recipes.recommended(),),
    "three": (recipes.l1(), recipes.paper(), recipes.recommended()),
}
WHOLE = (  # mix, networks, hidden, length, steps
    ("three", 48, 48, 10, 600),
    ("recommended", 24, 32, 20, 500),
    ("none", 96, 24, 8, 500),
)


def case(rng: random.Random) -> tuple[object, list[Network], Settings] | None:
    """Draw a training, or None if it is too large."""
    hidden = rng.choice([12, 16, 24, 32, 48, 64, 96, 128, 192, 256])
    length, batch = rng.choice([4, 6, 8, 10, 15, 20, 30, 50]), rng.choice([32, 64, 128])
    count = round(2 ** rng.uniform(0, 7.5))
    modules, size, outputs = rng.choice([1, 2, 4]), rng.choice([1, 2, 4, 8]), rng.choice([1, 2, 4])
    mix = MIXES[rng.choice(["none", *MIXES])]
    width = hidden + modules * size + 1
    if count < len(mix) or 4 * count * length * width * batch > STATE_BYTES:
        return None
    if count * length * batch * hidden * width > MULTIPLICATIONS:
        return None
    task = make("averaging", modules=modules, module_size=size, outputs_per_module=outputs, length=length)
    seeds = max(1, round(count * rng.choice([1.0, 0.5, 0.2])))
    return task, networks_of(mix, count, seeds), Settings(hidden=hidden, batch=batch)


def networks_of(mix: tuple[recipes.Recipe, ...], count: int, seeds: int) -> list[Network]:
    """Return networks of these recipes and so many seeds."""
    return [Network(mix[n % len(mix)], 1e-3, (n // len(mix)) % seeds) for n in range(count)]


def measure() -> tuple[np.ndarray, np.ndarray]:
    """Return the work of the cases (N, kinds) and their seconds (N,)."""
    rng, cases = random.Random(SEED), []
    while len(cases) < CASES:
        drawn = case(rng)
        if drawn is not None:
            cases.append(drawn)
    timers = [StepTimer(*drawn) for drawn in cases]
    times = np.array([[timer.run(2 * CHUNK) for timer in timers] for _ in range(ROUNDS)])
    return np.array([astuple(work_of_step(*drawn)) for drawn in cases]), times.min(axis=0)


def fit(work: np.ndarray, seconds: np.ndarray) -> Machine:
    """Return the machine that these measurements show; its tests are still to be added."""
    used = work.max(axis=0) > 0
    found = np.zeros(work.shape[1])
    found[used] = fit_times(work[:, used], seconds)
    return Machine(*(float(f"{value:.3g}") for value in found))


def with_tests(machine: Machine) -> Machine:
    """Return the machine with the time of tests, from three of them."""
    found = []
    for count, hidden, length in ((8, 32, 10), (16, 64, 6), (32, 16, 12)):
        task, settings = make("averaging", length=length), Settings(hidden=hidden)
        ensemble = StepTimer(task, networks_of(MIXES["none"], count, count), settings).trainer.ensemble
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            evaluate(task, ensemble)
            times.append(time.process_time() - start)
        work = work_of_test(task, count, settings)
        rest = machine.seconds(replace(work, tested=0.0))
        found.append((min(times) - rest) / work.tested)
    return replace(machine, tested=float(f"{np.median(found):.3g}"))


def errors(machine: Machine, work: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return predicted over measured, less 1."""
    return work @ np.array(astuple(machine)) / seconds - 1


def say(name: str, gaps: np.ndarray) -> list[str]:
    """Return a row of the table of errors."""
    size = np.abs(gaps)
    inside = f"{(size <= AIM).mean():.0%}"
    return [
        name,
        str(len(gaps)),
        f"{np.median(size):.1%}",
        f"{np.quantile(size, 0.9):.1%}",
        f"{size.max():.0%}",
        inside,
    ]


def whole(machine: Machine) -> list[list[str]]:
    """Return rows of whole trainings: predicted and measured."""
    rows = []
    for mix, count, hidden, length, steps in WHOLE:
        task = make("subtraction", signal="sparse", lag=length - 2, length=length)
        networks, settings = networks_of(MIXES[mix], count, 28), Settings(hidden=hidden, steps=steps)
        times = []
        for _ in range(2):
            start = time.process_time()
            train_networks(task, networks, settings)
            times.append(time.process_time() - start)
        guess = predict_seconds(task, networks, settings, machine=machine)
        name = f"{mix}, E = {count}, H = {hidden}, L = {length}, {steps} steps"
        rows.append([name, f"{guess:.2f} s", f"{min(times):.2f} s", f"{guess / min(times) - 1:+.0%}"])
    return rows


def price_list(machine: Machine) -> tuple[list[list[str]], np.ndarray]:
    """Return milliseconds for 1000 steps of one network, measured (predicted), and the relative errors."""
    rows, gaps = [], []
    cells = [(length, hidden) for length in (10, 30) for hidden in (16, 32, 64, 128)]
    timers = {}
    for length, hidden in cells:
        task, settings = make("averaging", length=length), Settings(hidden=hidden)
        for count in COUNTS:
            if count * hidden <= LARGEST:
                networks = networks_of(MIXES["recommended"], count, count)
                guess = machine.seconds(work_of_step(task, networks, settings))
                timers[length, hidden, count] = (StepTimer(task, networks, settings), guess)
    times = [[timer.run() for timer, _ in timers.values()] for _ in range(2)]
    best = dict(zip(timers, np.min(times, axis=0), strict=True))
    for length, hidden in cells:
        row = [str(length), str(hidden)]
        for count in COUNTS:
            if (length, hidden, count) not in best:
                row.append("")
                continue
            seconds, guess = best[length, hidden, count], timers[length, hidden, count][1]
            row.append(f"{1e6 * seconds / count:.0f} ({1e6 * guess / count:.0f})")
            gaps.append(guess / seconds - 1)
        rows.append(row)
    return rows, np.array(gaps)


def million(machine: Machine) -> str:
    """Return what a million networks of the study's kind take."""
    task, settings = make("subtraction", signal="sparse", lag=8, length=10), Settings(hidden=48)
    seconds = predict_seconds(task, networks_of(MIXES["three"], 48, 28), settings, machine=machine) / 48
    hours = 1e6 * seconds / 3600
    return f"{seconds:.3f} s a network; a million take {hours:.0f} core hours, {hours / 64:.1f} h on 64 cores"


def report(seconds: float, *, full: bool) -> str:  # noqa: ARG001 - it lasts as long as its cases
    torch.set_num_threads(1)
    work, times = measure()
    held = np.arange(len(times)) % HELD_OUT == 0
    machine = with_tests(fit(work[~held], times[~held]))
    here = calibrate()
    rows, gaps = price_list(machine)
    prices = table(["L", "H", *(f"E = {count}" for count in COUNTS)], rows)
    errors_of = table(
        ["model, on", "trainings", "median error", "9 of 10 within", "largest", f"within {AIM:.0%}"],
        [
            say("fitted, its own sizes", errors(machine, work[~held], times[~held])),
            say("fitted, held-out sizes", errors(machine, work[held], times[held])),
            say("fitted, the price list", gaps),
            say("that of costs.py, calibrated here, all sizes", errors(here, work, times)),
        ],
    )
    kinds = table(
        ["kind of work", "time"], [[f.name, unit(getattr(machine, f.name))] for f in fields(machine)]
    )
    trainings = table(["training", "predicted", "measured", "error"], whole(machine))
    line = ", ".join(f"{f.name}={getattr(machine, f.name):g}" for f in fields(machine))
    return (
        f"{errors_of}\n{trainings}\nMilliseconds for 1000 steps of one network, measured (predicted): "
        "recommended recipe, B = 64, I = 16, O = 4, E networks a batch\n\n"
        f"{prices}\nThree recipes, H = 48, L = 10, 2000 steps, 48 a batch: "
        f"{million(machine)}\n\n{kinds}\nMachine({line})\n"
    )


def unit(value: float) -> str:
    """Return seconds in a readable unit."""
    for size, name in ((1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value / 1e-12:.3g} ps"


if __name__ == "__main__":
    run(report, __doc__, seconds=150)
