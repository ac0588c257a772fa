"""What a hyper-parameter search chooses from: the table ``[search]`` of a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from hoplens.studies.sweeps.strict import Strict, as_tuple

if TYPE_CHECKING:
    import optuna

Finite = Annotated[float, Field(allow_inf_nan=False)]
Value = float | int | str


class Words(Strict):
    """A list of texts to choose from."""

    choices: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]

    def ask(self, trial: optuna.Trial, name: str) -> Value:
        """Choose for a trial."""
        chosen: Value = trial.suggest_categorical(name, self.choices)
        return chosen

    def ends(self) -> tuple[Value, ...]:
        """Return values that must be legal, so that all in between are."""
        return self.choices


class Span(Strict):
    """Numbers to choose from: a range ``{low, high, log}``, or a list."""

    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    choices: Annotated[tuple[Finite, ...], BeforeValidator(as_tuple), Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Span:
        if self.choices is not None:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ValueError("give either a list or a range with low and high, not both")
        elif self.low is None or self.high is None:
            raise ValueError("a range has low and high; else give a list")
        elif self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log = true, got {self.low:g}")
        return self

    def ask(self, trial: optuna.Trial, name: str) -> Value:
        """Choose for a trial."""
        if self.choices is not None:
            chosen: Value = trial.suggest_categorical(name, self.choices)
            return chosen
        return self._between(trial, name, self.low, self.high)

    def _between(self, trial: optuna.Trial, name: str, low: Any, high: Any) -> Value:
        return trial.suggest_float(name, low, high, log=self.log)

    def ends(self) -> tuple[Value, ...]:
        """Return values that must be legal, so that all in between are."""
        return self.choices or tuple(end for end in (self.low, self.high) if end is not None)


class WholeSpan(Span):
    """Whole numbers to choose from: a range ``{low, high, log}``, or a list."""

    low: int | None = None
    high: int | None = None
    choices: Annotated[tuple[int, ...], BeforeValidator(as_tuple), Field(min_length=1)] | None = None

    def _between(self, trial: optuna.Trial, name: str, low: Any, high: Any) -> Value:
        return trial.suggest_int(name, low, high, log=self.log)


def _listed(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list | tuple) else value


Numbers = Annotated[Span | None, BeforeValidator(_listed)]
Wholes = Annotated[WholeSpan | None, BeforeValidator(_listed)]


class SearchSpec(Strict):
    """What is searched, each from a range ``{ low = 1e-4, high = 1e-1, log = true }`` or a list.

    Parameters
    ----------
    strength : Span, optional
        Of every method that has one; those that the study lists otherwise.
    hidden, steps, batch, lr, decay, clip, leak, cell : optional
        As in ``[training]``, whose value holds for what is left out.
    """

    strength: Numbers = None
    hidden: Wholes = None
    steps: Wholes = None
    batch: Wholes = None
    lr: Numbers = None
    decay: Numbers = None
    clip: Numbers = None
    leak: Numbers = None
    cell: Annotated[Words | None, BeforeValidator(_listed)] = None

    @model_validator(mode="after")
    def _fits(self) -> SearchSpec:
        if not dict(self.training()) and self.strength is None:
            raise ValueError(f"give something to search: {', '.join(type(self).model_fields)}")
        if self.strength is not None and any(float(end) < 0 for end in self.strength.ends()):
            raise ValueError("strength must be at least 0")
        return self

    def training(self) -> Iterator[tuple[str, Span | Words]]:
        """Yield what is searched of the training, by name."""
        for name in type(self).model_fields:
            span = getattr(self, name)
            if span is not None and name != "strength":
                yield name, span


__all__ = ["SearchSpec", "Span", "Value", "WholeSpan", "Words"]
