"""Watch pathways form while a network trains: in a plain loop, under Lightning, in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.measures import active_hops
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_count, check_number
from hoplens.files import write_atomically
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up
from hoplens.models.guard import untouched
from hoplens.models.readers import read
from hoplens.penalties.pathway import Penalty

if TYPE_CHECKING:
    import pandas as pd

FRAMES = 80


@runtime_checkable
class Callback(Protocol):
    """What a training loop calls after each step."""

    def on_step(self, step: int, model: Any, loss: Any) -> None:
        """Take note of a step.

        Parameters
        ----------
        step : int
            Optimiser steps done.
        model : nn.Module or Pathways
            The network as it is now.
        loss : Tensor or float
            Loss of this step, one number.
        """


@dataclass(frozen=True, eq=False)
class HopRecord:
    """What was noted at one step.

    Attributes
    ----------
    step : int
    loss : float
    maps : HopMaps
        In float64, cut from autograd, on the CPU.
    active_hops : float
        Mean number of active hops a pair.
    penalty : float
        NaN where no penalty is watched.
    """

    step: int
    loss: float
    maps: HopMaps
    active_hops: float
    penalty: float


@dataclass(eq=False)
class HopLogger:
    """Records hop maps, active hops and the penalty every few steps.

    The model is read, never changed: its mode, gradients, hooks and the random numbers stay as they were.

    Parameters
    ----------
    horizon : int
        Time steps L of the hop maps.
    every : int, default 10
        Steps between records; step 0 counts.
    read_model : callable, optional
        Makes a `Pathways` of the model; default `hoplens.read`, which takes a model that runs one recurrent
        part and one linear layer and nothing else.
    penalty : Penalty, optional
        What to follow besides.
    threshold : float, default 0.1
        Of `active_hops`.
    sinks : sequence of callable
        Each is called with every new `HopRecord`, e.g. `TensorBoardSink`.
    records : list of HopRecord
        Filled by the run; leave it empty.
    """

    horizon: int
    every: int = 10
    read_model: Callable[[Any], Pathways] | None = None
    penalty: Penalty | None = None
    threshold: float = 0.1
    sinks: Sequence[Callable[[HopRecord], None]] = ()
    records: list[HopRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_count("horizon", self.horizon)
        check_count("every", self.every)
        check_number("threshold", self.threshold, least=0.0, below=1.0)

    def on_step(self, step: int, model: Any, loss: Any) -> None:
        """Record this step if its turn has come.

        Parameters
        ----------
        step : int
        model : nn.Module or Pathways
        loss : Tensor or float
        """
        if check_count("step", step, least=0) % self.every:
            return
        guard = untouched(model, evaluation=False) if isinstance(model, nn.Module) else nullcontext()
        with guard, torch.no_grad():
            net = (self.read_model or _read)(model)
            if net.batch_shape:
                raise ShapeError(
                    f"HopLogger follows one network, got leading axes {tuple(net.batch_shape)}; index them "
                    "in read_model"
                )
            net = net.detach().to("cpu").to(torch.float64)
            maps = hop_maps(net, self.horizon)
            value = float("nan") if self.penalty is None else float(self.penalty(net))
            active = float(active_hops(maps, self.threshold).double().mean())
            number = loss.detach() if isinstance(loss, Tensor) else loss
            record = HopRecord(step, float(number), maps, active, value)
        self.records.append(record)
        for sink in self.sinks:
            sink(record)

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a record: ``step``, ``loss``, ``active_hops``, ``penalty``, ``mass`` and its hops.

        ``mass`` is the sum of all ``|H_k|``; ``hop_2``, ``hop_3``, ... its parts.
        """
        import pandas as pd

        rows = []
        for record in self.records:
            mass = record.maps.values.abs().sum((1, 2)).tolist()
            row = {"step": record.step, "loss": record.loss, "active_hops": record.active_hops}
            row |= {"penalty": record.penalty, "mass": sum(mass)}
            row |= {f"hop_{k}": own for k, own in zip(record.maps.hops.tolist(), mass, strict=True)}
            rows.append(row)
        return pd.DataFrame(rows)

    def animate(
        self, path: str | os.PathLike[str], *, frames: int = FRAMES, seconds: float = 8.0, dpi: int = 100
    ) -> Path:
        """Write an animation of the hop maps through training, hop by pair, with a bar of progress.

        One colour scale for all frames. More than 60 pairs are shown as the 60 strongest, and said so.

        Parameters
        ----------
        path : path
            A .gif file; written whole or not at all.
        frames : int, default 80
            Most frames; records in between are left out.
        seconds : float, default 8
            Length of the animation.
        dpi : int, default 100

        Returns
        -------
        Path
        """
        target = Path(path)
        if target.suffix.lower() != ".gif":
            raise ParameterError(f"animate writes a .gif file, got {target.name!r}")
        if not self.records:
            raise ParameterError("nothing was recorded; call on_step in the training loop first")
        most, length = check_count("frames", frames), check_number("seconds", seconds, above=0.0)
        chosen = np.unique(np.linspace(0, len(self.records) - 1, min(most, len(self.records))).round())
        shown = [self.records[int(n)] for n in chosen]
        titles = [f"step {r.step}    loss {r.loss:.3g}    active hops {r.active_hops:.2f}" for r in shown]
        last = self.records[-1].step or 1
        done = [record.step / last for record in shown]
        dots = check_count("dpi", dpi)
        return write_atomically(
            target, look_up("hoplens.plots.films:film")([r.maps for r in shown], titles, done, length, dots)
        )

    def lightning(self) -> Any:
        """Return a Lightning callback that feeds this logger after every training batch.

        Needs the extra: ``pip install "hoplens[lightning]"``.
        """
        return lightning_callback(self)


def _read(model: Any) -> Pathways:
    """Return the graph of a model as `hoplens.read` does, with the way out where that is not enough."""
    try:
        return read(model)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{error} (here: HopLogger(read_model=lambda model: hl.read(model.rnn, model.head)))"
        ) from None


@dataclass(eq=False)
class TensorBoardSink:
    """Writes every record to TensorBoard: scalars, and the hop maps as an image.

    Needs the extra: ``pip install "hoplens[tensorboard]"``.

    Parameters
    ----------
    writer : SummaryWriter or path
        ``torch.utils.tensorboard.SummaryWriter``, or a folder to open one in.
    prefix : str, default "hoplens"
        Group of the tags.
    """

    writer: Any
    prefix: str = "hoplens"

    def __post_init__(self) -> None:
        if not isinstance(self.writer, str | os.PathLike):
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ParameterError(
                'logging to TensorBoard needs it: pip install "hoplens[tensorboard]"'
            ) from None
        self.writer = SummaryWriter(os.fspath(self.writer))  # type: ignore[no-untyped-call, unused-ignore]

    def __call__(self, record: HopRecord) -> None:
        """Write a record.

        Parameters
        ----------
        record : HopRecord
        """
        scalars = {"loss": record.loss, "active_hops": record.active_hops, "penalty": record.penalty}
        for hop, mass in zip(record.maps.hops.tolist(), record.maps.values.abs().sum((1, 2)), strict=True):
            scalars[f"mass/hop_{hop}"] = float(mass)
        for name, value in scalars.items():
            if np.isfinite(value):
                self.writer.add_scalar(f"{self.prefix}/{name}", value, record.step)
        self.writer.add_image(
            f"{self.prefix}/hop_maps",
            look_up("hoplens.plots.films:map_image")(record.maps),
            record.step,
            dataformats="HWC",
        )

    def close(self) -> None:
        """Flush and close the writer."""
        self.writer.close()


def lightning_callback(logger: Callback) -> Any:
    """Return a Lightning callback that passes every training step on.

    The class is made when asked for, so that hoplens does not import Lightning.

    Parameters
    ----------
    logger : Callback
        E.g. a `HopLogger`.

    Raises
    ------
    ParameterError
        If Lightning is not installed; names the extra.
    """
    try:
        from lightning.pytorch import Callback as Base
    except ImportError:
        raise ParameterError('this callback needs Lightning: pip install "hoplens[lightning]"') from None

    class Adapter(Base):  # type: ignore[misc, unused-ignore]
        def on_train_batch_end(  # its names are Lightning's
            self,
            trainer: Any,
            pl_module: Any,
            outputs: Any,
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            logger.on_step(int(trainer.global_step), pl_module, float("nan") if loss is None else loss)

    return Adapter()


__all__ = [
    "Callback",
    "HopLogger",
    "HopRecord",
    "TensorBoardSink",
    "lightning_callback",
]
