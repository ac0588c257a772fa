"""A tenth-order nonlinear system driven by noise: a memory of known length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import Origin, assemble, split_three
from hoplens.data.sets import SequenceData
from hoplens.errors import ParameterError, check_count
from hoplens.seeds import split_generator

ORDER = 10
LONGEST = 10_000  # of longer sequences too many would run away
ORIGIN = Origin(
    "the nonlinear autoregressive moving-average system of order 10 (NARMA-10), computed when loaded",
    "computed here from the published equation",
    "A. F. Atiya, A. G. Parlos, New results on recurrent network training: unifying the algorithms and "
    "accelerating convergence, IEEE Transactions on Neural Networks 11 (2000) 697-709",
)


def narma(
    *, length: int = 64, n: int = 1000, seed: int = 0, fractions: Sequence[float] | None = None
) -> SequenceData:
    """Compute the tenth-order system NARMA-10: from its random input so far to its next state.

    With u(t) uniform in 0 .. 0.5, independent from step to step, and u and y zero before the start,

        y(t + 1) = 0.3 y(t) + 0.05 y(t) (y(t) + ... + y(t - 9)) + 1.5 u(t - 9) u(t) + 0.1

    The input of step t is u(t), its target y(t + 1). So a target needs the input of nine steps before,
    multiplied by the present one, which no shorter memory can replace; y is not shown.

    Parameters
    ----------
    length : int, default 64
        Steps of a sequence.
    n : int, default 1000
        Sequences of all splits together.
    seed : int, default 0
        Draws the inputs and the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test.

    Returns
    -------
    SequenceData
        Of form "step values".

    Raises
    ------
    ParameterError
        If options are out of range.

    Notes
    -----
    The system may run away. A sequence in which y exceeds 1 is drawn anew.
    """
    steps, count = check_count("length", length, least=ORDER), check_count("n", n, least=3)
    if steps > LONGEST:
        raise ParameterError(f"length must lie in {ORDER} .. {LONGEST}, got {steps}")
    generator = split_generator(seed)
    parts = split_three(np.zeros(count), fractions, generator)
    inputs = generator.uniform(0.0, 0.5, (count, steps))
    states = response(inputs)
    while len(wild := np.flatnonzero((states > 1).any(axis=1))):
        inputs[wild] = generator.uniform(0.0, 0.5, (len(wild), steps))
        states[wild] = response(inputs[wild])
    return assemble(
        list(inputs[..., None]),
        list(states[..., None]),
        parts,
        ORIGIN,
        name="narma",
        form="step values",
        input_names=["drive"],
        output_names=["state"],
    )


def response(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return y(1) .. y(L), (N, L), of inputs u(0) .. u(L - 1), (N, L)."""
    past = ORDER - 1
    drive = np.pad(inputs, ((0, 0), (past, 0)))
    states = np.zeros((len(inputs), past + inputs.shape[1] + 1))
    with np.errstate(over="ignore", invalid="ignore"):  # what runs away is drawn anew
        for t in range(past, past + inputs.shape[1]):
            y = states[:, t]
            recent = states[:, t - past : t + 1].sum(axis=1)
            states[:, t + 1] = 0.3 * y + 0.05 * y * recent + 1.5 * drive[:, t - past] * drive[:, t] + 0.1
    return states[:, past + 1 :]
