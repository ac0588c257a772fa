"""Networks on a task or a data set: what a study file describes."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

import hoplens.data.registry as data_sets
from hoplens.data.sets import SequenceData
from hoplens.data.streams import CHUNK, TrainingTask
from hoplens.studies.measuring import measure
from hoplens.studies.sweeps.plugins import OwnMeasure, check_current
from hoplens.studies.sweeps.work import Outcome, Setting
from hoplens.training.result import TrainingResult
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# copies of weights that training holds: gradient, Adam's two, the last finite ones, mask, products
BUFFERS = 6
# One optimiser step on one of two busy cores (Xeon at 2 GHz), fitted by eye to H = 8 .. 512 and 1 .. 256
# networks, within a factor of 2; a quiet core takes about half.
BATCH_SECONDS = 1.5e-3  # calls, whatever their size
NETWORK_SECONDS = 5e-5  # what each network adds: its penalty, its share of the optimiser
NUMBER_SECONDS = 1.2e-8  # for each number of its states
PRODUCTS = 3e10  # multiplications a second


@dataclass(frozen=True)
class DataSource:
    """A data set by name and options, to be kept and sent: the numbers are read where they are used."""

    name: str
    seed: int = 0
    fractions: tuple[float, ...] | None = None
    options: tuple[tuple[str, Any], ...] | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name

    def load(self) -> SequenceData:
        """Return the data, read once a process."""
        return _load(self)


@functools.cache
def _load(source: DataSource) -> SequenceData:
    load = data_sets.SETS[source.name].load
    return load(seed=source.seed, fractions=source.fractions, **dict(source.options or ()))


@dataclass(frozen=True)
class TaskSetting(Setting):
    """Networks trained on one task or data set with one set of training settings."""

    task: TrainingTask | DataSource
    settings: Settings
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    weights: Literal["none", "all"] | tuple[int, ...] = "none"  # of all, or of these seeds, are kept
    followed: tuple[int, ...] | None = None  # seeds that are also measured along test sequences

    @property
    def label(self) -> str:
        """What tables call the task."""
        return getattr(self.task, "label", None) or type(self.task).__name__

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return self.settings.hidden

    @property
    def source(self) -> TrainingTask | SequenceData:
        """What is learnt."""
        return self.task.load() if isinstance(self.task, DataSource) else self.task

    def keeps(self, seed: int) -> bool:
        """Return whether the weights of networks of this seed are kept."""
        return self.weights == "all" or (isinstance(self.weights, tuple) and seed in self.weights)

    def counted(self, network: Network) -> TaskSetting:
        """Return the setting with ``weights`` and ``followed`` as they are for this network alone."""
        followed = (network.seed,) if network.seed in (self.followed or ()) else None
        return replace(self, weights="all" if self.keeps(network.seed) else "none", followed=followed)

    def run(self, networks: Sequence[Network]) -> Outcome:
        """Train and measure networks as `hoplens.train` does."""
        started = time.perf_counter()
        result = train_networks(
            self.source, networks, self.settings, device=self.device, dtype=DTYPES[self.dtype]
        )
        trained = time.perf_counter()
        frame = self._measured(result).drop(columns=["method", "strength", "seed"])
        seconds = {"train": trained - started, "measure": time.perf_counter() - trained}
        return Outcome(frame, self._kept(result), seconds)

    def _measured(self, result: TrainingResult, names: Sequence[str] = ()) -> pd.DataFrame:
        return measure(result, names, followed=self.followed or ())

    def _kept(self, result: TrainingResult) -> dict[str, Tensor]:
        rows = [n for n, network in enumerate(result.networks) if self.keeps(network.seed)]
        names = ("weight", "readout", "offset")
        return {
            f"{n}/{name}": tensor[n].cpu().contiguous()
            for n in rows
            for name, tensor in zip(names, result.ensemble.tensors, strict=True)
        }

    @property
    def _width(self) -> int:
        return self.settings.hidden + self.source.n_inputs + 1

    @property
    def _itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def state_bytes(self) -> int:
        """Memory of one network's states over a batch: (L, H + I + 1, B) numbers."""
        return self.source.length * self._width * self.settings.batch * self._itemsize

    @property
    def network_bytes(self) -> int:
        """Memory of one network in all: states, what goes backwards through them, data, weights, losses."""
        s, t = self.settings, self.source
        weights = self._width * s.hidden * s.blocks + (s.hidden + 1) * t.n_outputs
        data = CHUNK * s.batch * t.length * t.n_inputs
        return (1 + s.blocks) * self.state_bytes + self._itemsize * (
            BUFFERS * weights + 2 * data + s.steps
        )  # data: as drawn, and laid out

    @property
    def cost(self) -> float:
        """Multiplications of one network's training, forwards and backwards."""
        s, t = self.settings, self.source
        return 3.0 * s.steps * s.batch * t.length * s.hidden * s.blocks * self._width

    @property
    def rough_seconds(self) -> tuple[float, float]:
        """About how long training takes on one busy core: a whole batch, and what each network adds."""
        s, t = self.settings, self.source
        numbers = t.length * self._width * s.batch * s.blocks  # of the states of one network
        each = NETWORK_SECONDS + NUMBER_SECONDS * numbers + self.cost / s.steps / PRODUCTS
        return s.steps * BATCH_SECONDS, s.steps * each

    def probe(self, networks: Sequence[Network]) -> float:
        """Return the estimated seconds of these networks' training, from a few steps of it."""
        from hoplens.training.trainer import Trainer, neighbours

        order = neighbours(networks)
        trainer = Trainer(
            self.source,
            [networks[n] for n in order],
            self.settings,
            device=self.device,
            dtype=DTYPES[self.dtype],
        )
        steps = min(2 * CHUNK, self.settings.steps)
        first = steps // 2  # a whole round of data is drawn in the half that counts
        for step in range(steps):
            if step == first:
                started = self._clock()
            trainer.step(step, *trainer.data.batch(step))
        return (self._clock() - started) / (steps - first) * self.settings.steps

    def _clock(self) -> float:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class MeasuredSetting(TaskSetting):
    """A `TaskSetting` whose networks are measured by registered measures too."""

    measures: tuple[OwnMeasure, ...] = ()

    def _measured(self, result: TrainingResult, names: Sequence[str] = ()) -> pd.DataFrame:
        return super()._measured(result, [*check_current(self.measures), *names])


__all__ = ["DTYPES", "DataSource", "MeasuredSetting", "TaskSetting"]
