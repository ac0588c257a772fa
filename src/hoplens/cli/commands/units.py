"""Which units a plain RNN in a file has, where the file does not say: asked of the targets at hand."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from hoplens.compress.tuning import loss, score
from hoplens.errors import HoplensError, ParameterError
from hoplens.models.readers.opening import ASSUMED, open_parts, read_model
from hoplens.studies.compression.data import every_step, lengths_of, load_split

KINDS = ("tanh", "relu")


def check_units(
    console: Console,
    model: str,
    *,
    rnn: str | None,
    readout: str | None,
    nonlinearity: str | None,
    data: Path,
) -> None:
    """Compare tanh and relu units on the targets in a file of data, if it has some that fit a bare plain RNN.

    Raises where the units were not named and those that would be assumed fit worse; warns where they were.
    """
    parts = open_parts(model, rnn=rnn, readout=readout, nonlinearity=nonlinearity)
    plain = parts.whole is None and isinstance(parts.core, torch.nn.RNN)
    if not plain or parts.head is None:
        return
    try:
        split = load_split(data)
        fits = {}
        for kind in KINDS:
            network = read_model(
                model, rnn=rnn, readout=readout, nonlinearity=kind, every_step=every_step(split)
            ).float()
            with torch.no_grad():
                outputs = network(split.inputs, lengths_of(split))
                fits[kind] = float(loss(outputs, split.targets)), score(outputs, split.targets)
    except HoplensError:
        return  # no targets, or targets of something else
    chosen = nonlinearity or ASSUMED
    other = next(kind for kind in KINDS if kind != chosen)
    if chosen not in fits or fits[chosen][0] <= fits[other][0]:
        return
    scores = f"{fits[other][1]:.3f} against {fits[chosen][1]:.3f} on the targets of {data}"
    if nonlinearity is None:
        raise ParameterError(
            f"{model} does not say whether its units are tanh or relu, and {other} fits better ({scores}); "
            f"pass --nonlinearity {other}, or --nonlinearity {chosen} if you know that they are"
        )
    console.print(
        f"warning: {other} units would fit better than {chosen} ({scores})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def assumed_words(assumed: str) -> str:
    """Return the line that says what was assumed of a file."""
    return f"assumed: {assumed}; if they are others, pass --nonlinearity"


__all__ = ["assumed_words", "check_units"]
