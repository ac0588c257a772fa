"""Trials of a cognitive task as a data set: any environment that follows neurogym's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import FRACTIONS, OWN, Origin, assemble, split_three
from hoplens.data.sets import SequenceData
from hoplens.errors import NonFiniteError, ParameterError, ShapeError, UnsupportedModelError, check_count
from hoplens.seeds import split_generator

NEEDED = ("reset", "new_trial", "observation_space", "action_space")


def from_environment(
    env: Any,
    *,
    trials: int = 1000,
    name: str | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    standardise: bool = True,
) -> SequenceData:
    """Make a data set of trials of a cognitive task, e.g. of neurogym.

    Parameters
    ----------
    env : environment
        With the protocol below, itself or wrapped (``env.unwrapped`` is asked, so wrappers have no effect).
        It is reset, and draws ``trials`` trials.
    trials : int, default 1000
        In all splits together.
    name : str, optional
        Default the name of the environment's class.
    seed : int, default 0
        Given to ``env.reset`` and, where there is one, to ``env.seed``; and draws the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test.
    standardise : bool, default True
        Whether to centre and scale each input by what it does in training.

    Returns
    -------
    SequenceData
        One sequence a trial: "step class" where actions are discrete, else "step values".

    Raises
    ------
    UnsupportedModelError
        If the environment lacks a part of the protocol, or a trial has no ground truth.
    ShapeError
        If observations and ground truth do not fit together.
    NonFiniteError
        For observations with NaN or infinity.
    ParameterError
        For wrong fractions, too few trials, or ground truth outside the action space.

    Notes
    -----
    The protocol is neurogym's (M. Molano-Mazon et al., NeuroGym, PsyArXiv 2022): ``reset(seed=)`` starts
    anew; ``new_trial()`` draws a trial and sets ``ob``, its observations (T, I), and ``gt``, the right action
    at each step: (T,) whole numbers where ``action_space.n`` says that actions are discrete, else (T, O)
    numbers. ``observation_space.name`` and ``action_space.name``, dicts of a word to one index or several,
    give inputs and outputs their names where they are there. Checked by hand with neurogym 2.3.1, which pins
    older numpy and gymnasium and so lives in an environment of its own.
    """
    inner = getattr(env, "unwrapped", env)
    missing = [part for part in NEEDED if not hasattr(inner, part)]
    if missing:
        raise UnsupportedModelError(
            f"{type(inner).__name__} has no {', '.join(missing)}; give an environment with neurogym's "
            "protocol: reset(seed=), new_trial(), ob, gt, observation_space and action_space"
        )
    n_trials = check_count("trials", trials, least=3)
    generator = split_generator(seed)
    inner.reset(seed=seed)
    if callable(getattr(inner, "seed", None)):  # neurogym's reset takes a seed and does not use it
        inner.seed(seed)
    drawn = [_trial(inner) for _ in range(n_trials)]
    discrete = hasattr(inner.action_space, "n")
    n_inputs = drawn[0][0].shape[1]
    n_outputs = int(inner.action_space.n) if discrete else drawn[0][1].shape[1]
    if discrete:
        codes = np.concatenate([truth for _, truth in drawn])
        if codes.min() < 0 or codes.max() >= n_outputs:
            raise ParameterError(
                f"ground truth must be actions 0 .. {n_outputs - 1}, got {codes.min():g} .. {codes.max():g}"
            )
    return assemble(
        [observed for observed, _ in drawn],
        [truth for _, truth in drawn],
        split_three(np.zeros(n_trials), fractions, generator, names="trials"),
        Origin(f"trials of the environment {type(inner).__name__}", "as the environment's", OWN),
        name=name or type(inner).__name__,
        form="step class" if discrete else "step values",
        input_names=_names(inner.observation_space, n_inputs, "input"),
        output_names=_names(inner.action_space, n_outputs, "action"),
        standardise=standardise,
    )


def _trial(inner: Any) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Draw a trial: observations (T, I) and ground truth, (T,) where actions are discrete, else (T, O)."""
    inner.new_trial()
    if getattr(inner, "gt", None) is None or getattr(inner, "ob", None) is None:
        raise UnsupportedModelError(
            f"{type(inner).__name__} has no ground truth (ob and gt after new_trial), so there is nothing to "
            "imitate; choose a task with right answers"
        )
    # copies: an environment may fill the same arrays again
    observed, truth = np.array(inner.ob, dtype=np.float64), np.array(inner.gt)
    discrete = hasattr(inner.action_space, "n")
    fits = observed.ndim > 0 and observed.size > 0 and truth.shape[:1] == observed.shape[:1]
    if not fits or (discrete and truth.ndim != 1):
        raise ShapeError(f"a trial has observations {observed.shape} and ground truth {truth.shape}")
    observed = observed.reshape(len(observed), -1)
    if not discrete:
        truth = truth.astype(np.float64).reshape(len(truth), -1)
    if not np.isfinite(observed).all():
        raise NonFiniteError("a trial's observations have NaN or infinity; mend the environment")
    return observed, truth


def _names(space: Any, n: int, word: str) -> list[str]:
    """Name n inputs or outputs from a space's ``name``: {"fixation": 0, "choice": [1, 2]}."""
    names = [f"{word} {i}" for i in range(n)]
    known = getattr(space, "name", None)
    for key, where in (known if isinstance(known, dict) else {}).items():
        indices = [int(i) for i in np.atleast_1d(np.asarray(where))]
        for count, i in enumerate(indices):
            if 0 <= i < n:
                names[i] = str(key) if len(indices) == 1 else f"{key} {count}"
    return names
