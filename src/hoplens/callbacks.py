"""Watch pathways form while a network trains: in a plain loop, under Lightning, in TensorBoard."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, check_count, check_number
from hoplens.files import write_atomically
from hoplens.guard import untouched
from hoplens.hops import HopMaps, hop_maps
from hoplens.measures import active_hops
from hoplens.pathways import Pathways
from hoplens.penalties import Penalty
from hoplens.readers import read

if TYPE_CHECKING:
    import pandas as pd

MOST_PAIRS = 60  # columns of a frame of the animation that can still be told apart
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
class Record:
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
        Makes a `Pathways` of the model; default: the model is a Pathways, or has one recurrent module and,
        if one fits it, a linear read-out.
    penalty : Penalty, optional
        What to follow besides.
    threshold : float, default 0.1
        Of `active_hops`.
    sinks : sequence of callable
        Each is called with every new `Record`, e.g. `TensorBoardSink`.
    records : list of Record
        Filled by the run; leave it empty.
    """

    horizon: int
    every: int = 10
    read_model: Callable[[Any], Pathways] | None = None
    penalty: Penalty | None = None
    threshold: float = 0.1
    sinks: Sequence[Callable[[Record], None]] = ()
    records: list[Record] = field(default_factory=list)

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
            net = (self.read_model or pathways_of)(model)
            if net.batch_shape:
                raise ShapeError(
                    f"HopLogger follows one network, got leading axes {tuple(net.batch_shape)}; index them in "
                    "read_model"
                )
            net = net.detach().to("cpu").to(torch.float64)
            maps = hop_maps(net, self.horizon)
            value = float("nan") if self.penalty is None else float(self.penalty(net))
            active = float(active_hops(maps, self.threshold).double().mean())
            number = loss.detach() if isinstance(loss, Tensor) else loss
            record = Record(step, float(number), maps, active, value)
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
        return write_atomically(target, _film(shown, self.records, length, check_count("dpi", dpi)))

    def lightning(self) -> Any:
        """Return a Lightning callback that feeds this logger after every training batch.

        Needs the extra: ``pip install "hoplens[lightning]"``.
        """
        return lightning_callback(self)


def pathways_of(model: Any) -> Pathways:
    """Return the graph of a model with one recurrent module and at most one fitting read-out.

    Parameters
    ----------
    model : Pathways or nn.Module
    """
    if isinstance(model, Pathways):
        return model
    if not isinstance(model, nn.Module):
        return read(model)
    kinds = (nn.RNNBase, nn.RNNCellBase)
    found = [part for part in model.modules() if isinstance(part, kinds)]
    if len(found) != 1:
        if not found:
            return read(model)  # a class with a reader of its own, or the error that says how to write one
        raise ParameterError(
            f"{type(model).__name__} has {len(found)} recurrent modules; say which one with "
            "HopLogger(read_model=lambda model: hl.read(model.rnn, readout=model.head))"
        )
    bare = read(found[0])
    fits = [
        part for part in model.modules() if isinstance(part, nn.Linear) and part.in_features == bare.n_outputs
    ]
    if len(fits) > 1:
        raise ParameterError(
            f"{len(fits)} linear layers of {type(model).__name__} fit its {bare.n_outputs} hidden units; say "
            "which one with HopLogger(read_model=lambda model: hl.read(model.rnn, readout=model.head))"
        )
    return read(found[0], readout=fits[0]) if fits else bare


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
        self.writer = SummaryWriter(os.fspath(self.writer))  # type: ignore[no-untyped-call]

    def __call__(self, record: Record) -> None:
        """Write a record.

        Parameters
        ----------
        record : Record
        """
        scalars = {"loss": record.loss, "active_hops": record.active_hops, "penalty": record.penalty}
        for hop, mass in zip(record.maps.hops.tolist(), record.maps.values.abs().sum((1, 2)), strict=True):
            scalars[f"mass/hop_{hop}"] = float(mass)
        for name, value in scalars.items():
            if np.isfinite(value):
                self.writer.add_scalar(f"{self.prefix}/{name}", value, record.step)
        self.writer.add_image(f"{self.prefix}/hop_maps", _image(record.maps), record.step, dataformats="HWC")

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
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            logger.on_step(int(trainer.global_step), pl_module, float("nan") if loss is None else loss)

    return Adapter()


def _image(maps: HopMaps) -> Any:
    """Return hop by pair in the colours of the figures, 8 pixels a cell, array (K * 8, P * 8, 3)."""
    from hoplens.plots.style import DIVERGING

    values = maps.values.flatten(1).numpy()  # (K, P)
    limit = float(np.abs(values).max()) or 1.0
    colours = DIVERGING(0.5 + 0.5 * values / limit)[..., :3]
    return (255 * colours.repeat(8, 0).repeat(8, 1)).round().astype(np.uint8)


def _film(shown: list[Record], records: list[Record], seconds: float, dpi: int) -> bytes:
    """Return the GIF's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from PIL import Image

    from hoplens.plots.style import DIVERGING, INK, MUTED, PAPER_WHITE, RULE, name_axes, plain, quiet, short

    first = shown[0].maps
    names = [f"{short(i)} → {short(o)}" for o in first.output_names for i in first.input_names]
    films = np.stack([record.maps.values.flatten(1).numpy() for record in shown])  # (F, K, P)
    size = np.abs(films).max((0, 1))
    kept = np.sort(np.argsort(-size, kind="stable")[:MOST_PAIRS])
    films, limit = films[:, :, kept], float(size.max()) or 1.0
    hops = first.hops.tolist()
    figure = Figure(
        figsize=(float(np.clip(2.6 + 0.16 * len(kept), 4.6, 9)), float(np.clip(2.4 + 0.17 * len(hops), 3, 6))),
        facecolor=PAPER_WHITE,
        layout="constrained",
        dpi=dpi,
    )
    canvas = FigureCanvasAgg(figure)
    ax, below = figure.subplots(2, 1, height_ratios=[12, 1])
    edges = np.arange(len(kept) + 1) - 0.5, np.arange(len(hops) + 1) + hops[0] - 0.5
    mesh = ax.pcolormesh(*edges, films[0], cmap=DIVERGING, norm=Normalize(-limit, limit))
    quiet(ax)
    ax.invert_yaxis()
    note = "" if len(kept) == len(names) else f" ({len(kept)} strongest of {len(names)})"
    name_axes(ax, f"pair, input → output{note}", "hop length")
    if len(kept) <= 24:
        ax.set_xticks(range(len(kept)), [names[j] for j in kept], rotation=90)
    else:
        ax.set_xticks([])
    ax.yaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(mesh, ax=ax, aspect=18, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("weight", fontsize=8, color=INK)
    bar.ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=7)
    below.set_axis_off()
    below.set_xlim(0, 1)
    below.set_ylim(-1, 1)
    below.plot([0, 1], [0, 0], color=RULE, linewidth=4, solid_capstyle="round")
    (progress,) = below.plot([0, 0], [0, 0], color=INK, linewidth=4, solid_capstyle="round")
    title = ax.set_title("", loc="left", fontsize=8, color=INK)
    last = max(record.step for record in records) or 1
    images, palette = [], _palette()
    for record, film in zip(shown, films, strict=True):
        mesh.set_array(film)
        progress.set_data([0, record.step / last], [0, 0])
        title.set_text(
            plain(f"step {record.step}    loss {record.loss:.3g}    active hops {record.active_hops:.2f}")
        )
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        # one palette for all frames: colours must not change their meaning
        images.append(image.quantize(128, palette=palette, dither=Image.Dither.NONE))
    hold = max(20, round(1000 * seconds / len(images)))
    times = [hold] * (len(images) - 1) + [max(hold, 1500)]
    data = io.BytesIO()
    images[0].save(
        data, format="GIF", save_all=True, append_images=images[1:], duration=times, loop=0, optimize=False
    )
    return data.getvalue()


def _palette() -> Any:
    """Return an image of 128 colours that all frames can use: the map's scale and the greys of the frame."""
    from PIL import Image

    from hoplens.plots.style import DIVERGING

    scale = (255 * DIVERGING(np.linspace(0, 1, 104))[:, :3]).round().astype(int)
    greys = np.linspace(0, 255, 24).round().astype(int)[:, None].repeat(3, 1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([scale, greys]).flatten().tolist())
    return palette


__all__ = [
    "Callback",
    "HopLogger",
    "Record",
    "TensorBoardSink",
    "lightning_callback",
    "pathways_of",
]
