"""What training returns: the networks, how they did, and what is needed to use them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from hoplens.data.sets import SequenceData
from hoplens.data.streams import TrainingTask
from hoplens.display import Shown
from hoplens.errors import FileError, HoplensError, ParameterError, check_choice
from hoplens.files import regular_file, write_atomically
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up
from hoplens.models.ensemble import Ensemble
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel
from hoplens.training.evaluation import evaluate_split
from hoplens.training.settings import Network

if TYPE_CHECKING:
    import pandas as pd

KEY = "hoplens_training"  # of the description in a file's metadata
FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class TrainingResult(Shown):
    """Trained networks and how they did.

    Attributes
    ----------
    ensemble : Ensemble
        The trained weights. A network that diverged holds its last finite weights.
    losses : Tensor, shape (steps, E)
        Training loss without penalty; NaN after a divergence.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
    metrics : pandas.DataFrame
        One row a network: method, strength, seed; test_error (lower is better: of tasks and real numbers the
        mean squared error as a share of the targets' variance, of classes 1 - accuracy or bits a step, of
        labels nats a step); accuracy or f1 where there is one; of data sets also test_loss,
        validation_error, validation_loss and validation_accuracy; nonzero (recurrent weights); diverged_at.
    info : ModelInfo
        Names, normalisation, and where the networks are read out.
    length : int
        Time steps of the task, or of the longest training sequence.
    modules : tuple
        Of the inputs and of the outputs, where the task has them.
    task : TrainingTask or SequenceData, or None
        What was learnt; None in a loaded result.
    networks : tuple of Network
        Recipe, strength and seed of each, in the order of every E axis; empty in a loaded result.
    search : pandas.DataFrame or None
        Of ``strengths="auto"``: one row a network that was tried, with its validation loss or error.
    """

    ensemble: Ensemble
    losses: Tensor
    diverged_at: Tensor
    metrics: pd.DataFrame = field(repr=False)
    info: ModelInfo
    length: int
    modules: tuple[Any, Any] = (None, None)
    task: TrainingTask | SequenceData | None = None
    networks: tuple[Network, ...] = ()
    search: pd.DataFrame | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        size, cell = self.ensemble.size, self.ensemble.cell
        methods = ", ".join(map(str, dict.fromkeys(self.metrics["method"])))
        best = float(self.metrics["test_error"].iloc[self.best])
        return (
            f"TrainingResult: {size} {cell} networks of {self.ensemble.n_hidden} units ({methods})\n"
            f"test error of the best {best:.4g}; .metrics has all"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return ``metrics``, as a notebook shows them."""
        return self.metrics

    @property
    def pathways(self) -> Pathways:
        """The trained graphs, leading axis E as in ``metrics``: raw, or linearised at the origin."""
        net = self.ensemble.pathways()
        return Pathways(
            net.w_in,
            net.w_rec,
            net.w_out,
            leak=net.leak,
            input_names=self.info.input_names,
            output_names=self.info.output_names,
            input_modules=self.modules[0],
            output_modules=self.modules[1],
            hidden_names=net.hidden_names,
            hidden_modules=net.hidden_modules,
            provenance=net.provenance,
        )

    @property
    def best(self) -> int:
        """Row of the network of least validation error, of tasks test error; the first where all diverged."""
        measure = "validation_error" if "validation_error" in self.metrics else "test_error"
        errors = [math.inf if math.isnan(e) else e for e in self.metrics[measure]]
        return errors.index(min(errors))

    def model(self, n: int | None = None) -> RecurrentModel:
        """Return one network as a module of its own, with names and normalisation of its data.

        Parameters
        ----------
        n : int, optional
            Row of ``metrics``; default the ``best``.
        """
        return self.ensemble.model(self.best if n is None else n, self.info)

    def predict(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run all networks on the same sequences, without gradients.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)
        lengths : Tensor of int64, shape (B,), optional
            Valid steps; default all.

        Returns
        -------
        Tensor, shape (E, B, O)
            Read-out after the last valid step; ``ensemble.predict_steps`` gives all.
        """
        with torch.no_grad():
            return self.ensemble.predict(inputs, lengths)

    def evaluate(self, split: str = "test", ensemble: Ensemble | None = None) -> dict[str, Tensor]:
        """Return the measures of every network on a split of its data set.

        Parameters
        ----------
        split : {"train", "validation", "test"}
        ensemble : Ensemble, optional
            Other weights, pruned ones for example; default the trained ones.
        """
        check_choice("split", split, ("train", "validation", "test"))
        if not isinstance(self.task, SequenceData):
            raise ParameterError("splits are those of a data set; of a task see `metrics`, or use `predict`")
        return evaluate_split(ensemble or self.ensemble, getattr(self.task, split), self.task.form)

    def plot(self, n: int | None = None) -> Any:
        """Draw the training losses and the hop maps of one network.

        Parameters
        ----------
        n : int, optional
            Row of ``metrics``; default the ``best``.

        Returns
        -------
        matplotlib.figure.Figure
        """
        return look_up("hoplens.plots.training:plot_training")(self, self.best if n is None else n)

    def save(self, path: str | Path) -> Path:
        """Write all networks, losses and metrics into one safetensors file; `load` reads it.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Path
            ``path``.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        names = ("weight", "readout", "offset")
        tensors = dict(zip(names, self.ensemble.tensors, strict=True))
        tensors |= {"losses": self.losses, "diverged_at": self.diverged_at}
        told = {
            "format": FORMAT,
            "cell": self.ensemble.cell,
            "leak": self.ensemble.leak,
            "info": asdict(self.info),
            "length": self.length,
            "modules": self.modules,
            "metrics": {str(name): self.metrics[name].tolist() for name in self.metrics},
        }
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return write_atomically(path, save(own, metadata={KEY: json.dumps(told)}))

    @classmethod
    def load(cls, path: str | Path) -> TrainingResult:
        """Read what `save` wrote. No code is run.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        FileError
            If the file is missing, damaged, or of another kind.
        """
        import pandas as pd

        file = regular_file(path, "training result")
        try:
            with safe_open(file, framework="pt") as opened:
                told = json.loads((opened.metadata() or {}).get(KEY, "null"))
            if not isinstance(told, dict) or told.get("format") != FORMAT:
                raise FileError(f"{str(file)!r} is no training result of this version of hoplens")
            tensors = load(file.read_bytes())
            weight, readout, offset = (tensors[name] for name in ("weight", "readout", "offset"))
            info: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in told["info"].items()
            }
            modules: Sequence[Any] = [tuple(m) if isinstance(m, list) else m for m in told["modules"]]
            return cls(
                ensemble=Ensemble(weight, readout, offset, told["cell"], told["leak"]),
                losses=tensors["losses"],
                diverged_at=tensors["diverged_at"],
                metrics=pd.DataFrame(told["metrics"]),
                info=ModelInfo(**info),
                length=int(told["length"]),
                modules=(modules[0], modules[1]),
            )
        except FileError:
            raise
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, IndexError, HoplensError) as error:
            said = " ".join(str(error).split())[:120]
            raise FileError(
                f"the training result {str(file)!r} is damaged ({said}); train it again"
            ) from None


def is_result(file: Path) -> bool:
    """Return whether a file of safetensors holds what `TrainingResult.save` wrote."""
    try:
        with safe_open(file, framework="pt") as opened:
            return KEY in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False  # the reader of models says what is wrong


__all__ = ["TrainingResult", "is_result"]
