"""Networks on one of the data sets: the setting of the study on real sequences."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

import hoplens.data as data_sets
from hoplens.data import SequenceData
from hoplens.studies.real.measure import measure_report, measure_validation
from hoplens.studies.real.wiring import make_wiring, worm
from hoplens.studies.sweeps.work import Outcome, Setting
from hoplens.training.result import TrainingResult
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

if TYPE_CHECKING:
    import pandas as pd

LEAK = 0.5  # of the leaky cell
VALIDATION, REPORT, WIRING = "validation", "report", "wiring"
ITEMSIZE = 4  # bytes of a number
BUFFERS = 6  # copies of weights that training holds


@dataclass(frozen=True)
class RealSet:
    """A data set and the networks that learn it.

    Attributes
    ----------
    name : str
        In tables.
    cell : {"tanh", "leaky", "gru", "lstm"}
    loader : str
        Function of `hoplens.data`.
    options : tuple of (str, value)
        Its options.
    hidden, steps, batch : int
        See `Settings`.
    """

    name: str
    cell: str
    loader: str
    options: tuple[tuple[str, object], ...] = ()
    hidden: int = 48
    steps: int = 800
    batch: int = 32

    def load(self) -> SequenceData:
        """Return the data, cut the same way for all networks; read once a process."""
        return _load(self.loader, self.options)

    @property
    def settings(self) -> Settings:
        """What all networks of the set are trained with."""
        return Settings(
            hidden=self.hidden,
            steps=self.steps,
            batch=self.batch,
            cell=self.cell,
            leak=LEAK if self.cell == "leaky" else 1.0,
        )


@functools.cache
def _load(loader: str, options: tuple[tuple[str, object], ...]) -> SequenceData:
    found: SequenceData = getattr(data_sets, loader)(**dict(options))
    return found


@dataclass(frozen=True)
class RealSetting(Setting):
    """Networks trained on one data set for one stage of the study.

    Parameters
    ----------
    stage : {"validation", "report", "wiring"}
        Says what is measured.
    data : RealSet
    settings : Settings
    arm : str, optional
        Of the wiring stage: see `hoplens.studies.real.wiring.make_wiring`.
    followed : tuple of int, optional
        Seeds whose networks are also measured along trajectories.
    """

    stage: str
    data: RealSet
    settings: Settings
    arm: str = ""
    followed: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """What tables call the task."""
        return self.data.name

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return self.settings.hidden

    def counted(self, network: Network) -> RealSetting:
        """Return the setting with no other seed followed than this network's."""
        return replace(self, followed=tuple(seed for seed in self.followed if seed == network.seed))

    def run(self, networks: Sequence[Network]) -> Outcome:
        """Train and measure networks; see `hoplens.studies.real.measure`."""
        started = time.perf_counter()
        result = train_networks(self.data.load(), networks, self.settings, **self._wiring(networks))
        trained = time.perf_counter()
        frame = self._measure(result).drop(columns=["method", "strength", "seed"])
        return Outcome(frame, seconds={"train": trained - started, "measure": time.perf_counter() - trained})

    def _wiring(self, networks: Sequence[Network]) -> dict[str, Any]:
        """Return what networks of the wiring stage start from."""
        if self.stage != WIRING:
            return {}
        wirings = [make_wiring(self.arm, network.seed) for network in networks]
        _, sensory, motor = worm()
        return {
            "mask": torch.stack([wiring.mask for wiring in wirings]),
            "w_rec": torch.stack([wiring.w_rec for wiring in wirings]),
            "input_units": sensory,
            "output_units": motor,
        }

    def _measure(self, result: TrainingResult) -> pd.DataFrame:
        if self.stage == VALIDATION:
            return measure_validation(result)
        if self.stage == REPORT:
            return measure_report(result, self.followed)
        names = {"test_error": "test_error", "test_loss": "loss"}
        kept = ["method", "strength", "seed", *names.values(), "nonzero", "diverged_at"]
        return result.metrics.rename(columns=names)[kept]

    @property
    def _width(self) -> int:
        return self.settings.hidden + self.data.load().n_inputs + 1

    @property
    def _blocks(self) -> int:
        return self.settings.blocks

    @property
    def state_bytes(self) -> int:
        """Memory of one network's states over a batch: (L, H + I + 1, B) numbers."""
        return self.data.load().length * self._width * self.settings.batch * ITEMSIZE

    @property
    def network_bytes(self) -> int:
        """Memory of one network in all: states, gates, what goes backwards through them, weights, losses."""
        s, data = self.settings, self.data.load()
        weights = self._width * s.hidden * self._blocks + (s.hidden + 1) * data.n_outputs
        return 2 * (1 + self._blocks) * self.state_bytes + ITEMSIZE * (BUFFERS * weights + s.steps)

    @property
    def cost(self) -> float:
        """Multiplications of one network's training, forwards and backwards."""
        s = self.settings
        per_step = s.batch * self.data.load().length * s.hidden * self._blocks * self._width
        return 3.0 * s.steps * per_step


__all__ = ["REPORT", "VALIDATION", "WIRING", "RealSet", "RealSetting"]
