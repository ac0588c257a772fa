"""The parts of a search: one method on one task, whose trials optuna chooses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hoplens.data.streams import TrainingTask
from hoplens.errors import ParameterError
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.describe import content_hash
from hoplens.studies.sweeps.plan import MAIN, Member
from hoplens.studies.sweeps.settings import DataSource
from hoplens.studies.sweeps.space import Span, Value, Words
from hoplens.studies.sweeps.specs import MethodSpec, PartSpec
from hoplens.studies.sweeps.work import Shard
from hoplens.training.recipes import Recipe
from hoplens.training.settings import Network

if TYPE_CHECKING:
    import optuna


def load_optuna() -> Any:
    """Return the package optuna, or say how to install it."""
    try:
        import optuna
    except ImportError:
        raise ParameterError("a search needs optuna: pip install 'hoplens[search]'") from None
    return optuna


class MethodSearch:
    """The search over one method on one task.

    Parameters
    ----------
    study : Study
    block : PartSpec
    label : str
        What tables call the task.
    task : TrainingTask
    hidden : int
        Units where they are not searched.
    method : MethodSpec
    seed : int
        Of the search.
    """

    def __init__(
        self,
        study: Study,
        block: PartSpec,
        label: str,
        task: TrainingTask | DataSource,
        hidden: int,
        method: MethodSpec,
        seed: int,
    ) -> None:
        package = load_optuna()
        self.study, self.block, self.label, self.task, self.hidden = study, block.name, label, task, hidden
        self.recipe: Recipe = method.build()
        self.spans = self._spans(block, method)
        # each cell has choices of its own, which stay if the study gets more methods or tasks
        own = int(content_hash([seed, self.block, label, self.recipe.name]), 16) % 2**32
        self.sampler = package.samplers.TPESampler(seed=own)
        self.optuna: optuna.Study = package.create_study(sampler=self.sampler)
        self.asked = 0
        self.best: tuple[float, list[Member]] | None = None
        self._open: tuple[optuna.Trial, list[Member]] | None = None

    def _spans(self, block: PartSpec, method: MethodSpec) -> dict[str, Span | Words]:
        spec = self.study.search
        assert spec is not None  # `search` has seen to it
        spans: dict[str, Span | Words] = dict(spec.training())
        if not self.recipe.has_strength:
            return spans
        if spec.strength is not None and method.strengths is None:
            return {"strength": spec.strength, **spans}
        return {"strength": Span(choices=self.study.strengths_of(block, method)), **spans}

    def largest(self) -> Shard:
        """Return the trial that would take the most memory."""
        most: dict[str, Value] = {
            name: max(int(end) for end in span.ends())
            for name, span in self.spans.items()
            if name in ("hidden", "steps", "batch")
        }
        training = self.study.trained_with(most)
        setting = self.study.setting(self.task, int(most.get("hidden", self.hidden)), training)
        seeds = self.study.seeds.validation
        return Shard(setting, tuple(Network(self.recipe, 0.0, seed) for seed in seeds))

    def ask(self) -> list[Member]:
        """Begin the next trial; return its networks."""
        trial = self.optuna.ask()
        values: dict[str, Value] = {name: span.ask(trial, name) for name, span in self.spans.items()}
        strength = float(values.pop("strength", 0.0))
        training = self.study.trained_with(values)
        setting = self.study.setting(self.task, int(values.get("hidden", self.hidden)), training)
        part = f"trial {self.asked}" if self.block == MAIN else f"{self.block}, trial {self.asked}"
        members = [
            Member(part, self.label, Network(self.recipe, strength, seed), "validation", setting)
            for seed in self.study.seeds.validation
        ]
        self.asked += 1
        self._open = trial, members
        return members

    def tell(self, error: float | None) -> None:
        """End the trial that `ask` began.

        Parameters
        ----------
        error : float or None
            Mean error; infinite if a network diverged, None if the trial failed.
        """
        assert self._open is not None
        trial, members = self._open
        self._open = None
        if error is None:
            self.optuna.tell(trial, state=load_optuna().trial.TrialState.FAIL)
            return
        self.optuna.tell(trial, error)
        if math.isfinite(error) and (self.best is None or error < self.best[0]):
            self.best = error, members

    @property
    def networks(self) -> list[Member]:
        """The networks of the trial that `ask` began."""
        assert self._open is not None
        return self._open[1]


def cells_of(study: Study, seed: int) -> list[MethodSearch]:
    """Return the searches of a study: one a method, task and, unless sizes are searched, size."""
    assert study.search is not None
    found = []
    searched = study.search.hidden is not None
    for block in study.blocks:
        for spec in block.tasks:
            task = spec.build()
            for hidden in study.training.hidden[:1] if searched else study.training.hidden:
                label = spec.title(task)
                if len(study.training.hidden) > 1 and not searched:
                    label = f"{label}, {hidden} hidden"
                found += [MethodSearch(study, block, label, task, hidden, m, seed) for m in block.methods]
    return found


__all__ = ["MethodSearch", "cells_of", "load_optuna"]
