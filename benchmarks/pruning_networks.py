"""Networks that the pruning benchmark prunes, the data that they see, and how well they do."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import hoplens as hl
from hoplens.data.streams import TrainingTask
from hoplens.models.ensemble import Ensemble
from hoplens.seeds import generator
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network, Settings
from hoplens.training.trainer import Trainer

HIDDEN, LENGTH, STEPS = 48, 10, 1500
STRENGTHS = (1e-4, 3e-4, 1e-3)
VALIDATION_SEEDS = range(4)
CALIBRATION, TEST, TAYLOR = 128, 2048, 512  # sequences; Taylor scores get more, for their targets' noise
TUNING_LR = 2e-3


class Digits:
    """Scikit-learn's 8 x 8 digits, row by row: 8 steps of 8 pixels, ten classes as one-hot targets."""

    n_inputs, n_outputs, length, form, label = 8, 10, 8, "regression", "digits, row by row"

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
        inputs = torch.tensor(data.images, dtype=torch.float32)[order] / 16
        classes = torch.tensor(data.target)[order]
        self.parts = {
            name: (inputs[rows], classes[rows])
            for name, rows in (
                ("train", slice(1000)),
                ("validation", slice(1000, 1300)),
                ("test", slice(1300, None)),
            )
        }

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Draw training images with replacement."""
        inputs, classes = self.parts["train"]
        rows = torch.randint(len(classes), (n,), generator=generator)
        return inputs[rows].to(dtype), torch.nn.functional.one_hot(classes[rows], 10).to(dtype)


def tasks() -> dict[str, TrainingTask]:
    """Return the tasks by name."""
    made = [
        hl.tasks.make("subtraction", signal="sparse", length=LENGTH, lag=LENGTH - 2),
        hl.tasks.make("averaging", signal="on-off", length=LENGTH),
        hl.tasks.make("addition", signal="every", length=LENGTH),
        Digits(),
    ]
    return {task.label: task for task in made}


def recipes() -> list[Recipe]:
    """Return the ways to train."""
    return [hl.recipes.none(), hl.recipes.l1(), hl.recipes.paper(), hl.recipes.recommended()]


def performance(task: TrainingTask, ensemble: Ensemble, part: str = "test") -> Tensor:
    """Return what each network does better than chance, shape (E,): 1 is perfect, 0 and less is chance.

    Explained share of the targets' variance; of digits the accuracy above one in ten, over 0.9.
    """
    with torch.no_grad():
        if isinstance(task, Digits):
            inputs, classes = task.parts[part]
            found = ensemble.predict(inputs.to(ensemble.weight)).argmax(-1)
            return ((found == classes).double().mean(-1) - 0.1) / 0.9
        source = generator("benchmark data", int(part != "test"))
        inputs, targets = task.sample(TEST, generator=source, dtype=ensemble.weight.dtype)
        outputs = ensemble.predict(inputs)
        variance = targets.var(dim=0, correction=0).mean()
        return 1 - (outputs - targets).square().mean((1, 2)).double() / variance


def calibration(task: TrainingTask) -> tuple[Tensor, Tensor]:
    """Return training data that no network saw as such: inputs and targets for scores."""
    return task.sample(TAYLOR, generator=generator("calibration data", 0), dtype=torch.float32)


def trained(
    task: TrainingTask, recipe: Recipe, seeds: range, steps: int, strengths: tuple[float, ...] = STRENGTHS
) -> tuple[Ensemble, float]:
    """Return networks at the recipe's best strength, which other seeds choose, and that strength."""
    best = 0.0
    if recipe.terms and len(strengths) > 1:
        tried = hl.train(
            task, recipe, seeds=VALIDATION_SEEDS, strengths=strengths, hidden=HIDDEN, steps=steps
        )
        scores = performance(task, tried.ensemble, "validation").view(len(strengths), -1).mean(1)
        best = strengths[int(scores.argmax())]
    elif recipe.terms:
        best = strengths[0]
    made = hl.train(task, recipe, seeds=seeds, strengths=[best], hidden=HIDDEN, steps=steps)
    return made.ensemble, best


def tuned(task: TrainingTask, ensemble: Ensemble, masks: Tensor, seeds: range, steps: int) -> Ensemble:
    """Return networks after fine-tuning on the task (no penalty) with the masks (E, H, H) held."""
    settings = Settings(hidden=ensemble.n_hidden, steps=steps, lr=TUNING_LR, decay=1.0)
    # data that training has not drawn yet
    networks = [Network(hl.recipes.none(), 0.0, 10_000 + seed) for seed in seeds]
    trainer = Trainer(task, networks, settings, mask=masks)
    for tensor, start in zip(trainer.ensemble.tensors, ensemble.tensors, strict=True):
        tensor.copy_(start)
    trainer.train()
    return replace(trainer.ensemble)
