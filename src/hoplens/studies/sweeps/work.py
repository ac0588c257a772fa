"""Units of work: networks of one shape that are trained as one batch, and how a worker runs them."""

from __future__ import annotations

import os
import pickle
import platform
import socket
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from hoplens.errors import ParameterError
from hoplens.studies.extensions.files import SourceFile, loaded_sources, using
from hoplens.studies.sweeps.describe import canonical, content_hash, describe, text_hash
from hoplens.threads import threads as torch_threads
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network

if TYPE_CHECKING:
    import pandas as pd

Value = float | int | str | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What running a shard gives."""

    frame: pd.DataFrame  # one row a network, in the order given
    tensors: dict[str, Tensor] = field(default_factory=dict)  # kept beside the table, e.g. "0/weight"
    seconds: dict[str, float] = field(default_factory=dict)


class Setting(ABC):
    """What the networks of a shard share, and how they are run.

    A subclass is a frozen dataclass of plain data (see `describe`), so that it can be hashed, compared
    and sent to a worker. Networks of equal settings are trained as one batch.
    """

    @property
    @abstractmethod
    def label(self) -> str:
        """What tables call the task."""

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Hidden units."""

    @abstractmethod
    def run(self, networks: Sequence[Network]) -> Outcome:
        """Train and measure networks; called in a worker."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Memory that one network's states take while it is trained: what has to fit the cache."""

    @property
    @abstractmethod
    def network_bytes(self) -> int:
        """Memory that one network takes in all while it is trained."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """Relative time to train one network."""

    @property
    def rough_seconds(self) -> tuple[float, float]:
        """About how long training takes on one busy core: a whole batch, and what each network adds.

        A rough guess that is the same on every machine: shards are cut by it. 0 where it is not known.
        """
        return 0.0, 0.0

    def probe(self, networks: Sequence[Network]) -> float | None:  # noqa: ARG002 - for subclasses
        """Return the estimated seconds that these networks take, by a short trial; None if unknown."""
        return None

    def counted(self, network: Network) -> Setting:  # noqa: ARG002 - for subclasses
        """Return the setting as it counts for one network, without what concerns only others."""
        return self

    def config(self, network: Network) -> str:
        """Return all that fixes the numbers of one network, as JSON.

        The recipe's name is left out: it labels, and changes no number.
        """
        recipe, setting = _recipe_text(network.recipe), _setting_text(self.counted(network))
        strength = canonical(describe(float(network.strength)))
        return f'{{"recipe":{recipe},"seed":{network.seed},"setting":{setting},"strength":{strength}}}'

    def key(self, network: Network) -> str:
        """Return the content hash of one network: another one for any other numbers."""
        return text_hash(self.config(network))


# thousands of networks share a recipe and a setting
@lru_cache(maxsize=1024)
def _setting_text(setting: Setting) -> str:
    return canonical(describe(setting))


@lru_cache(maxsize=1024)
def _recipe_text(recipe: Recipe) -> str:
    found = describe(recipe)
    del found["name"]
    return canonical(found)


@dataclass(frozen=True)
class Shard:
    """Networks that are trained as one batch, the unit of work."""

    setting: Setting
    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        if not self.networks:
            raise ParameterError("a shard needs at least one network")

    @property
    def keys(self) -> list[str]:
        """Content hashes of the networks."""
        return [self.setting.key(network) for network in self.networks]

    @property
    def key(self) -> str:
        """Content hash of the shard."""
        return content_hash(self.keys)

    @property
    def bytes(self) -> int:
        """Memory of all its networks while they are trained."""
        return self.setting.network_bytes * len(self.networks)

    @property
    def cost(self) -> float:
        """Relative time."""
        return self.setting.cost * len(self.networks)


@dataclass(frozen=True)
class Finished:
    """What a worker sends back: plain data and bytes, so that any transport carries it."""

    records: list[dict[str, Value]]
    tensors: bytes  # a safetensors file; empty if nothing is kept
    seconds: dict[str, float]
    worker: str  # host:process
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Failed:
    """What a worker sends back if running a shard raised an error."""

    reason: str
    trace: str


def run_shard(shard: Shard, threads: int = 1) -> Finished | Failed:
    """Run a shard in this process; what it raises comes back as a value.

    So any error that a future of an executor raises is one of the executor: a worker was lost.
    """
    started = time.perf_counter()
    try:
        with torch_threads(threads):
            outcome = shard.setting.run(shard.networks)
        if len(outcome.frame) != len(shard.networks):
            raise ParameterError(
                f"a shard of {len(shard.networks)} networks gave {len(outcome.frame)} rows of measures"
            )
        return Finished(
            records=_records(outcome.frame),
            tensors=save_tensors(outcome.tensors) if outcome.tensors else b"",
            seconds={**outcome.seconds, "total": time.perf_counter() - started},
            worker=f"{socket.gethostname()}:{os.getpid()}",
            device=_device(getattr(shard.setting, "device", "cpu")),
            versions=versions(),
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit in a task of one's own is a failure like any other
        return _failed(error)


def _failed(error: BaseException) -> Failed:
    first = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {first[0] if first else 'no message'}"
    return Failed(reason, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class ShardPayload:
    """A shard on its way to another process, with the files of extensions that it needs.

    It is opened where it runs, so that a file which cannot be run there fails the shard and not the worker.
    """

    sources: tuple[SourceFile, ...]
    data: bytes

    @classmethod
    def of(cls, shard: Shard) -> ShardPayload:
        """Pack a shard."""
        return cls(loaded_sources(), pickle.dumps(shard))


def run_payload(payload: ShardPayload, threads: int = 1) -> Finished | Failed:
    """Open a payload and run its shard in this process; see `run_shard`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(using(payload.sources))
            shard: Shard = pickle.loads(payload.data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return _failed(error)
        return run_shard(shard, threads)


def probe(shard: Shard, threads: int = 1) -> float | None:
    """Return the estimated seconds of a shard, by a short trial of it; None if it cannot be tried."""
    try:
        with torch_threads(threads):
            return shard.setting.probe(shard.networks)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a task of one's own may fail, or call sys.exit; running the shard will say so
        return None


def _records(frame: pd.DataFrame) -> list[dict[str, Value]]:
    """Return the rows as plain Python numbers and texts."""
    columns: dict[str, list[Value]] = {str(name): frame[name].tolist() for name in frame.columns}
    return [{name: values[n] for name, values in columns.items()} for n in range(len(frame))]


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    import numpy

    from hoplens.version import __version__

    return {
        "hoplens": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def _device(name: str) -> str:
    """Return what computed, by its own name."""
    if torch.device(name).type == "cuda":
        return torch.cuda.get_device_name(torch.device(name))
    return f"{name} ({platform.machine()})"
