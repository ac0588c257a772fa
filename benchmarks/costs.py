"""How long training takes before it is begun: a cost model of a step, fitted once, scaled to the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from hoplens.data.streams import CHUNK, TrainingTask
from hoplens.data.tasks import make
from hoplens.errors import ParameterError, check_count
from hoplens.penalties.pathway import PathwayPenalty, Penalty, PenaltySum, WeightPenalty
from hoplens.seeds import generator
from hoplens.training.recipes import Recipe, l1, none, paper
from hoplens.training.settings import Network, Settings

if TYPE_CHECKING:
    from hoplens.training.trainer import Trainer

TEST_SAMPLES = 4096  # sequences that `hoplens.evaluation` tests every network on
CACHE_BYTES = 2 << 20  # states beyond this come from slower memory
PROGRESS = 50  # points of training at which schedules are looked at
STRIDE = (
    41  # measured steps are spread over all of training; prime, so that pruning comes as often as it does
)

ROUNDS = 30  # of the fit by absolute errors
EXACT = 1e-4  # relative errors below this are alike to it


@dataclass(frozen=True)
class Machine:
    """Seconds for one unit of each kind of work, on one thread.

    Attributes
    ----------
    step : float
        A step of the optimiser, whatever its size: calls from Python.
    tick : float
        A time step of the sequences: calls.
    multiply : float
        A multiplication and addition in the products of training.
    state : float
        A number of the hidden states, forwards and backwards.
    far : float
        The same, in addition, where the states of a batch exceed the second-level cache.
    weight : float
        A weight in the optimiser and in clipping.
    draw : float
        A random number of the training data.
    copy : float
        A number of the inputs of a network, copied in place.
    pathway : float
        A pathway penalty of a group of networks.
    hop : float
        A hop of such a penalty: calls.
    hop_product : float
        A hop of one network.
    hop_multiply : float
        A multiplication and addition there.
    weights : float
        A weight penalty of a group of networks.
    entry : float
        A weight that it penalises.
    tested : float
        A number of the hidden states in the test after training.
    """

    step: float
    tick: float
    multiply: float
    state: float
    far: float
    weight: float
    draw: float
    copy: float
    pathway: float
    hop: float
    hop_product: float
    hop_multiply: float
    weights: float
    entry: float
    tested: float

    def seconds(self, work: Machine) -> float:
        """Return the time of an amount of work.

        Parameters
        ----------
        work : Machine
            Counts of `work_of_step`.
        """
        return float(np.dot(astuple(self), astuple(work)))

    def scaled(self, calls: float, arithmetic: float) -> Machine:
        """Return a machine whose calls, and whose other work, take so many times as long.

        Parameters
        ----------
        calls, arithmetic : float
            Factors, above 0.
        """
        factors = {f.name: calls if f.name in CALLS else arithmetic for f in fields(self)}
        return Machine(**{name: getattr(self, name) * factor for name, factor in factors.items()})


CALLS = ("step", "tick", "pathway", "hop", "hop_product", "weights")
NOTHING = Machine(*[0.0] * len(fields(Machine)))
# One thread of an AMD EPYC (1 MiB of second-level cache a core) with torch 2.13, by benchmarks/scaling.py
REFERENCE = Machine(
    step=3.44e-4,
    tick=1.02e-5,
    multiply=2.17e-11,
    state=2.25e-9,
    far=6.62e-10,
    weight=6.39e-9,
    draw=8.25e-9,
    copy=2.57e-9,
    pathway=3.92e-4,
    hop=1.7e-6,
    hop_product=4.32e-7,
    hop_multiply=7.43e-11,
    weights=1.42e-4,
    entry=3.37e-9,
    tested=4.06e-9,
)


def predict_seconds(
    task: TrainingTask,
    networks: Sequence[Network],
    settings: Settings,
    *,
    machine: Machine | None = None,
) -> float:
    """Return the time that `hoplens.train` takes for one batch of networks, on one thread of a CPU.

    Parameters
    ----------
    task : TrainingTask
    networks : sequence of Network
        Trained as one batch, in any order.
    settings : Settings
    machine : Machine, optional
        From `calibrate`; default the one that the model was fitted on.

    Returns
    -------
    float
        Seconds of training and of the test after it. Measures of a study come on top.

    Notes
    -----
    Counts kinds of work (calls, multiplications, states, weights, random numbers) and adds up their times.
    ``docs/scaling.md`` says how close that comes. Leaky units, ``eager`` and single networks with long
    horizons are taken as the common case, the removal of weights as free, and a penalty of one's own as a
    `PathwayPenalty` of all hops.
    """
    if not networks:
        raise ParameterError("there is nothing to predict: give at least one network")
    chosen = machine or REFERENCE
    steps = settings.steps * chosen.seconds(work_of_step(task, networks, settings))
    return steps + chosen.seconds(work_of_test(task, len(networks), settings))


def work_of_step(task: TrainingTask, networks: Sequence[Network], settings: Settings) -> Machine:
    """Return how much of each kind of work a step of the optimiser is, on average over training.

    Parameters
    ----------
    task : TrainingTask
    networks : sequence of Network
    settings : Settings

    Returns
    -------
    Machine
        Counts instead of seconds.
    """
    e, h, b = len(networks), settings.hidden, settings.batch
    length, i, o = task.length, task.n_inputs, task.n_outputs
    width = h + i + 1
    reads = length if _reads_every_step(task) else 1
    seeds = len({network.seed for network in networks})
    products = 2 * length * h * width + (length - 1) * h * h  # forwards, weight gradient, back in time
    work = replace(
        NOTHING,
        step=1.0,
        tick=length,
        multiply=e * b * (products + 3 * reads * o * h),
        state=e * length * h * b,
        far=max(0.0, e * length * width * b - CACHE_BYTES / 4),
        weight=e * h * width,
        draw=seeds * length * b * i,
        copy=e * length * b * i,
    )
    counts: dict[Recipe, int] = {}
    for network in networks:
        counts[network.recipe] = counts.get(network.recipe, 0) + 1
    groups: dict[tuple[object, ...], tuple[Recipe, int]] = {}
    for recipe, n in counts.items():  # recipes of the same terms share one penalty
        groups[recipe.terms] = (recipe, n + groups.get(recipe.terms, (recipe, 0))[1])
    for recipe, n in groups.values():
        for penalty, share in _active(recipe, length):
            work = _with_penalty(work, penalty, share, n, (h, i, o, length))
    return work


def _with_penalty(
    work: Machine, penalty: Penalty, share: float, n: int, sizes: tuple[int, int, int, int]
) -> Machine:
    """Add a penalty of n networks that counts in a share of the steps."""
    h, i, o, length = sizes
    if isinstance(penalty, PenaltySum):
        for part in penalty.penalties:
            assert isinstance(part, Penalty)
            work = _with_penalty(work, part, share, n, sizes)
        return work
    if isinstance(penalty, WeightPenalty):
        entries = n * h * (h + i + o)
        return replace(work, weights=work.weights + share, entry=work.entry + share * entries)
    thin, hops = min(i, o), length
    if isinstance(penalty, PathwayPenalty):
        thin = min(thin, penalty.sample or thin)
        hops = penalty.horizon or length
        share = share / penalty.every
    return replace(
        work,
        pathway=work.pathway + share,
        hop=work.hop + share * hops,
        hop_product=work.hop_product + 3 * share * n * hops,
        hop_multiply=work.hop_multiply + 3 * share * n * hops * thin * h * h,
    )


def _active(recipe: Recipe, length: int) -> Iterator[tuple[Penalty, float]]:
    """Yield the penalties of a recipe with the share of training in which they count."""
    scheduled = recipe.penalty(length)
    rows = zip(scheduled.weights, scheduled.penalties, scheduled.schedules, strict=True)
    for weight, penalty, schedule in rows:
        assert isinstance(penalty, Penalty)
        on = sum(weight * schedule((n + 0.5) / PROGRESS) != 0 for n in range(PROGRESS))
        if on:
            yield penalty, on / PROGRESS


def work_of_test(task: TrainingTask, networks: int, settings: Settings) -> Machine:
    """Return how much work the test after training is; see `hoplens.training.evaluation.evaluate`.

    Parameters
    ----------
    task : TrainingTask
    networks : int
    settings : Settings
    """
    check_count("networks", networks)
    rows = networks * TEST_SAMPLES * task.length
    width = settings.hidden + task.n_inputs + 1
    return replace(NOTHING, tested=rows * settings.hidden, multiply=rows * settings.hidden * width)


def _reads_every_step(task: TrainingTask) -> bool:
    targets = task.sample(1, generator=generator("samples", 0), dtype=torch.float32)[1]
    return bool(targets.dim() == 3)


class StepTimer:
    """Times steps of a training, spread over all of it.

    Parameters
    ----------
    task : TrainingTask
    networks : sequence of Network
    settings : Settings
        Whatever its number of steps, as many are run as are asked for.
    """

    def __init__(self, task: TrainingTask, networks: Sequence[Network], settings: Settings) -> None:
        from hoplens.training.trainer import Trainer, neighbours

        order = neighbours(networks)
        self.trainer: Trainer = Trainer(task, [networks[n] for n in order], settings)
        self.done = 0
        self.run(CHUNK)

    def run(self, steps: int = CHUNK) -> float:
        """Return the processor time of one step, the mean of so many.

        Parameters
        ----------
        steps : int, default 16
            A multiple of the steps whose data are drawn at once.

        Returns
        -------
        float
            Seconds. Processor time, so that what else runs on the machine disturbs little.
        """
        total = self.trainer.settings.steps
        start = time.process_time()
        for step in range(self.done, self.done + steps):
            self.trainer.step((STRIDE * step) % total, *self.trainer.data.batch(step))
        self.done += steps
        return (time.process_time() - start) / steps


def calibrate(*, rounds: int = 5) -> Machine:
    """Return the cost model scaled to this machine, by about a second of measurement.

    Two factors are fitted, one for calls and one for all other work, to steps of four small trainings.

    Parameters
    ----------
    rounds : int, default 5
        Each training is timed so often, in turn; the fastest counts.

    Returns
    -------
    Machine
    """
    check_count("rounds", rounds)
    task = make("averaging", signal="every", length=10)
    settings = Settings(hidden=32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases = []
        for recipes, count, hidden in (
            ((none(),), 1, 16),
            ((l1(), paper()), 4, 16),
            ((none(),), 32, 64),
            ((paper(),), 48, 48),
        ):
            networks = [Network(recipes[n % len(recipes)], 1e-3, n) for n in range(count)]
            own = replace(settings, hidden=hidden)
            cases.append((work_of_step(task, networks, own), StepTimer(task, networks, own)))
        best = [
            min(times) for times in zip(*[[t.run() for _, t in cases] for _ in range(rounds)], strict=True)
        ]
    finally:
        torch.set_num_threads(threads)
    calls, rest = REFERENCE.scaled(1.0, 0.0), REFERENCE.scaled(0.0, 1.0)
    parts = np.array([[calls.seconds(work), rest.seconds(work)] for work, _ in cases])
    return REFERENCE.scaled(*fit_times(parts, np.array(best)))


def fit_times(parts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the factors, above 0, with which parts add up to measured times, by relative error.

    Parameters
    ----------
    parts : array, shape (N, P)
        Each row is one measurement.
    seconds : array, shape (N,)

    Returns
    -------
    array, shape (P,)

    Notes
    -----
    Least absolute relative errors, by nonnegative least squares that are weighed anew round by round: times
    that other work on the machine disturbed, some of many, do not pull by their size. No factor is below a
    thousandth of what would explain the least time alone.
    """
    from scipy.optimize import nnls

    scale = parts.max(axis=0)
    relative = parts / scale / seconds[:, None]
    weights = np.ones(len(seconds))
    for _ in range(ROUNDS):
        found, _ = nnls(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1), EXACT))
    return np.asarray(np.maximum(found, 1e-3 * seconds.min()) / scale)


__all__ = [
    "REFERENCE",
    "Machine",
    "StepTimer",
    "calibrate",
    "fit_times",
    "predict_seconds",
    "work_of_step",
    "work_of_test",
]
