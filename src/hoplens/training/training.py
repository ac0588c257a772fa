"""Train many networks as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.data.streams import TrainingTask
from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_count, check_number
from hoplens.graph.pathways import Pathways
from hoplens.memory import check_memory
from hoplens.models.ensemble import Ensemble
from hoplens.training.evaluation import evaluate
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network, Settings
from hoplens.training.trainer import Trainer, neighbours

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Trained networks and how they did.

    Attributes
    ----------
    task : TrainingTask
        What they were trained on.
    networks : tuple of Network
        Recipe, strength and seed of each, in the order of every E axis.
    ensemble : Ensemble
        The trained weights. A network that diverged holds its last finite weights.
    losses : Tensor, shape (steps, E)
        Training loss without penalty; NaN after a divergence.
    diverged_at : Tensor of int64, shape (E,)
        First step whose loss was not finite; -1 if none.
    metrics : pandas.DataFrame
        One row a network: penalty, strength, seed, test_mse (share of the target variance), accuracy
        (share of outputs on the right side of 0), diverged_at.
    """

    task: TrainingTask
    networks: tuple[Network, ...]
    ensemble: Ensemble
    losses: Tensor
    diverged_at: Tensor
    metrics: pd.DataFrame = field(repr=False)

    @property
    def pathways(self) -> Pathways:
        """The trained graphs, leading axis E in the order of ``metrics``."""
        net, task = self.ensemble.pathways(), self.task
        return Pathways(
            net.w_in,
            net.w_rec,
            net.w_out,
            leak=net.leak,
            input_modules=getattr(task, "input_modules", None),
            output_modules=getattr(task, "output_modules", None),
            provenance=net.provenance,
        )

    def predict(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences, without gradients.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I)

        Returns
        -------
        Tensor, shape (E, B, O)
            Read-out after the last time step; ``ensemble.predict_steps`` gives all.
        """
        with torch.no_grad():
            return self.ensemble.predict(inputs)


def train(
    task: TrainingTask,
    recipe: Recipe | Sequence[Recipe],
    *,
    seeds: Sequence[int] = (0,),
    strengths: Sequence[float] = (1e-3,),
    hidden: int = 32,
    steps: int = 2000,
    batch: int = 64,
    lr: float = 6e-3,
    decay: float = 0.7,
    clip: float = 1.0,
    activation: str = "tanh",
    leak: float = 1.0,
    eager: bool = False,
    mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> TrainingResult:
    """Train one network for every (recipe, strength, seed), all as one batch.

    A network's numbers depend on its recipe, strength and seed and on the settings only: trained alone
    it comes out the same to float tolerance. Networks of one seed see the same data, so that methods can
    be compared in pairs. The global random state is not touched.

    Parameters
    ----------
    task : Task
        From `hoplens.tasks.make`; or an own one that follows `hoplens.data.streams.TrainingTask`.
    recipe : Recipe or sequence of Recipe
        From `hoplens.recipes`. A recipe without penalty is trained once a seed, with strength 0.
    seeds : sequence of int
        Seeds of weights and data.
    strengths : sequence of float
        Factors of the penalty.
    hidden, steps, batch, lr, decay, clip, activation, leak, eager
        See `hoplens.training.settings.Settings`.
    mask : Tensor of bool, shape (H, H) or (E, H, H), optional
        Recurrent weights that exist, ``mask[i, j]`` for the edge j -> i; the others are 0 from start to
        end. Networks come in the order of ``metrics``.
    device, dtype
        Where and in what precision to train.
    progress : callable, optional
        Called as ``progress(steps done, steps)`` now and then.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ParameterError
        For settings out of range, or no network at all.
    ShapeError
        If the mask does not fit.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    settings = Settings(
        hidden=hidden,
        steps=steps,
        batch=batch,
        lr=lr,
        decay=decay,
        clip=clip,
        activation=activation,
        leak=leak,
        eager=eager,
    )
    count = sum(len(seeds) * (len(strengths) if r.has_strength else 1) for r in recipes)
    check_memory(f"a list of {count} networks", 200 * count, "take fewer seeds, strengths or recipes")
    networks = [
        Network(r, float(strength), int(seed))
        for r in recipes
        for strength in (strengths if r.has_strength else (0.0,))
        for seed in seeds
    ]
    return train_networks(task, networks, settings, mask=mask, device=device, dtype=dtype, progress=progress)


def train_networks(
    task: TrainingTask,
    networks: Sequence[Network],
    settings: Settings,
    *,
    mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], Any] | None = None,
) -> TrainingResult:
    """Train any mixture of networks of one shape as one batch; see `train`."""
    if not isinstance(task, TrainingTask):
        raise UnsupportedModelError(
            f"task must come from hoplens.tasks.make, got {type(task).__name__}; an own task needs "
            "n_inputs, n_outputs, length, form and sample(n, generator=, dtype=)"
        )
    if not networks:
        raise ParameterError("nothing to train: give at least one recipe, strength and seed")
    for network in networks:
        if network.recipe.uses == "dropout":
            raise UnsupportedModelError(
                f"recipe {network.recipe.name!r} uses dropout, which only hoplens.train_sequences knows"
            )
        check_number("strength", network.strength, least=0.0)
        check_count("seed", network.seed, least=0)
    settings.check_memory(
        len(networks),
        n_inputs=task.n_inputs,
        n_outputs=task.n_outputs,
        length=task.length,
        dtype=dtype,
        device=device,
    )
    order = torch.tensor(neighbours(networks))
    mask = check_mask(mask, len(networks), settings.hidden)
    run = Trainer(
        task,
        [networks[n] for n in order.tolist()],
        settings,
        device=device,
        dtype=dtype,
        mask=mask[order] if mask is not None and mask.dim() == 3 else mask,
    )
    run.train(progress)
    back = torch.argsort(order).to(run.losses.device)
    ensemble = run.ensemble.select(back)
    losses, diverged = run.losses[:, back], run.diverged_at[back]
    return TrainingResult(
        task, tuple(networks), ensemble, losses, diverged, _metrics(task, networks, ensemble, diverged)
    )


def check_mask(mask: Tensor | None, networks: int, hidden: int) -> Tensor | None:
    """Return the mask on the CPU, zeros and ones, or raise."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask).detach().cpu()
    shapes = ((hidden, hidden), (networks, hidden, hidden))
    if tuple(mask.shape) not in shapes:
        raise ShapeError(f"mask must have shape {shapes[0]} or {shapes[1]}, got {tuple(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ParameterError("mask must hold booleans, or zeros and ones; it says which weights exist")
    return mask


def _metrics(
    task: TrainingTask, networks: Sequence[Network], ensemble: Ensemble, diverged: Tensor
) -> pd.DataFrame:
    import pandas as pd

    error, accuracy = evaluate(task, ensemble)
    lost = diverged >= 0
    frame = pd.DataFrame(
        {
            "penalty": [n.recipe.name for n in networks],
            "strength": [n.strength for n in networks],
            "seed": [n.seed for n in networks],
            "test_mse": error.masked_fill(lost, math.nan).double().cpu().numpy(),
            "accuracy": accuracy.masked_fill(lost, math.nan).double().cpu().numpy(),
            "diverged_at": diverged.cpu().numpy(),
        }
    )
    return frame
