"""From raw sequences to a data set: seeded cuts, padding, standardisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hoplens.data.sets import FORMS, IGNORED, SequenceData, Split
from hoplens.errors import FileError, NonFiniteError, ParameterError, ShapeError, check_choice
from hoplens.seeds import split_generator

Array = NDArray[Any]
Parts = tuple[Array, Array, Array]  # indices of the training, validation and test sequences
FRACTIONS = (0.6, 0.2, 0.2)
HELD_OUT = 0.2  # of official training sequences, for validation
OWN = "your own"
INSTALL = "pip install 'hoplens[data]'"


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from, under what terms, and whom to cite."""

    source: str
    licence: str
    citation: str


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Return three positive numbers that add up to 1."""
    try:
        numbers = tuple(float(f) for f in fractions)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(f > 0 for f in numbers) or abs(sum(numbers) - 1) > 1e-6:
        raise ParameterError(
            "fractions must be three numbers above 0 that add up to 1 (training, validation, test), got "
            f"{fractions!r}"
        )
    return numbers


def cut(
    groups: ArrayLike, fractions: Sequence[float], generator: np.random.Generator, *, names: str = ""
) -> list[Array]:
    """Cut indices into parts at random, each group (class) by the same fractions.

    ``groups`` (N,): what each sequence belongs to; one value for all where there are no classes.
    ``fractions``: positive and adding up to 1, one a part. ``names``: what an error calls the sequences.
    Returns sorted indices, one array a part; together each index once.
    """
    labels = np.asarray(groups)
    edges = np.cumsum(fractions)
    parts: list[list[Array]] = [[] for _ in fractions]
    for group in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == group))
        ends = np.rint(edges * len(rows)).astype(int)
        ends[-1] = len(rows)
        for part, start, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            part.append(rows[start:end])
    found = [np.sort(np.concatenate(part)) if part else np.empty(0, int) for part in parts]
    if any(len(part) == 0 for part in found):
        raise ParameterError(
            f"{len(labels)} {names or 'sequences'} are too few for parts of {', '.join(map(str, fractions))}"
            "; use other fractions or more sequences"
        )
    return found


def split_three(
    groups: ArrayLike, fractions: Sequence[float] | None, generator: np.random.Generator, *, names: str = ""
) -> Parts:
    """Cut indices into training, validation and test; ``None`` are `FRACTIONS`."""
    parts = cut(
        groups, check_fractions(FRACTIONS if fractions is None else fractions), generator, names=names
    )
    return parts[0], parts[1], parts[2]


def split_official(
    train: ArrayLike, test: ArrayLike, fractions: Sequence[float] | None, generator: np.random.Generator
) -> Parts:
    """Cut the series of an official split, given the labels of both parts, training first.

    ``None`` keeps the official test series and takes `HELD_OUT` of the training ones for validation;
    fractions pool all and cut anew.
    """
    labels, extra = np.asarray(train), np.asarray(test)
    if fractions is not None:
        return split_three(np.concatenate([labels, extra]), fractions, generator)
    kept, validation = cut(labels, (1 - HELD_OUT, HELD_OUT), generator)
    return kept, validation, np.arange(len(labels), len(labels) + len(extra))


def assemble(
    sequences: Sequence[Array],
    targets: Sequence[Any] | Array,
    parts: Parts,
    origin: Origin,
    *,
    name: str,
    form: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    standardise: bool = True,
) -> SequenceData:
    """Pad, standardise on the training part, and put together."""
    shortest = min(len(sequence) for sequence in sequences)
    if shortest < 1:
        raise ParameterError(f"{name}: every sequence needs at least 1 step, got one of 0")
    n_inputs = sequences[0].shape[1]
    mean, scale = np.zeros(n_inputs), np.ones(n_inputs)
    if standardise:
        steps = np.concatenate([sequences[i] for i in parts[0]])
        mean, scale = steps.mean(axis=0), steps.std(axis=0)
        # a constant input (its spread is rounding) carries nothing: centred, it stays 0
        scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, 1.0)

    def split(rows: Array) -> Split:
        chosen = (
            [(sequences[i] - mean) / scale for i in rows] if standardise else [sequences[i] for i in rows]
        )
        lengths = torch.tensor([len(s) for s in chosen])
        return Split(_padded(chosen, 0.0), _targets([targets[i] for i in rows], form), lengths)

    return SequenceData(
        name=name,
        form=form,
        train=split(parts[0]),
        validation=split(parts[1]),
        test=split(parts[2]),
        n_outputs=len(output_names),
        input_names=tuple(input_names),
        output_names=tuple(output_names),
        mean=torch.tensor(mean, dtype=torch.float32),
        scale=torch.tensor(scale, dtype=torch.float32),
        source=origin.source,
        licence=origin.licence,
        citation=origin.citation,
    )


def _targets(targets: Sequence[Any], form: str) -> Tensor:
    if form == "class":
        return torch.tensor([int(t) for t in targets])
    if form == "step class":
        return _padded([np.asarray(t) for t in targets], IGNORED).long()
    return _padded([np.asarray(t) for t in targets], 0.0)


def _padded(sequences: Sequence[Array], value: float) -> Tensor:
    longest = max(len(s) for s in sequences)
    whole = np.full((len(sequences), longest, *sequences[0].shape[1:]), value, dtype=np.float32)
    for row, sequence in zip(whole, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(whole)


def from_sequences(
    sequences: Sequence[ArrayLike],
    targets: Sequence[Any] | Array,
    *,
    form: str,
    name: str = "own",
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    standardise: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> SequenceData:
    """Make a data set of your own sequences.

    Parameters
    ----------
    sequences : sequence of N arrays (L_n, I)
        Of any lengths.
    targets : sequence of N
        By ``form``: whole numbers 0 .. O - 1; arrays (L_n,) of them; arrays (L_n, O) of 0 and 1, or of
        numbers.
    form : {"class", "step class", "step labels", "step values"}
        See `SequenceData`.
    name : str, default "own"
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test; of each class by itself where ``form`` is "class".
    standardise : bool, default True
        Whether to centre and scale each input by what it does in training; False for codes.
    input_names, output_names : sequences of str, optional
        Default "x0", "x1", ... and "y0", "y1", ...

    Returns
    -------
    SequenceData

    Raises
    ------
    ShapeError
        If sequences and targets do not fit together.
    NonFiniteError
        For NaN or infinity.
    ParameterError
        For wrong fractions, classes below 0, or too few sequences.

    Examples
    --------
    >>> import numpy as np, hoplens as hl
    >>> rows = [np.random.default_rng(n).normal(size=(5 + n % 3, 2)) for n in range(20)]
    >>> own = hl.data.from_sequences(rows, [n % 2 for n in range(20)], form="class")
    >>> len(own.train), own.n_inputs, own.length
    (12, 2, 7)
    """
    check_choice("form", form, FORMS)
    arrays = [np.asarray(s, dtype=np.float64) for s in sequences]
    _check_sequences(arrays, len(targets))
    goals = [np.asarray(t) for t in targets]
    n_outputs = _check_targets(goals, arrays, form)
    if output_names is not None and len(output_names) != n_outputs:
        raise ShapeError(f"output_names must hold {n_outputs} names, one an output, got {len(output_names)}")
    groups = np.asarray(goals) if form == "class" else np.zeros(len(arrays))
    return assemble(
        arrays,
        goals,
        split_three(groups, fractions, split_generator(seed)),
        Origin(OWN, OWN, OWN),
        name=name,
        form=form,
        input_names=input_names or [f"x{n}" for n in range(arrays[0].shape[1])],
        output_names=output_names or [f"y{n}" for n in range(n_outputs)],
        standardise=standardise,
    )


def _check_sequences(arrays: list[Array], n_targets: int) -> None:
    if not arrays or len(arrays) != n_targets:
        raise ShapeError(f"expected as many targets as sequences, got {n_targets} for {len(arrays)}")
    for n, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != arrays[0].shape[-1] or len(array) < 1:
            raise ShapeError(
                "sequences must be arrays (L, I) of one I and at least 1 step; "
                f"number {n} has shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise NonFiniteError(f"sequence {n} has NaN or infinity; drop it or fill it in")


def _check_targets(goals: list[Array], arrays: list[Array], form: str) -> int:
    """Return the number of outputs O."""
    for n, (goal, array) in enumerate(zip(goals, arrays, strict=True)):
        wanted = {"class": (), "step class": (len(array),)}.get(form, (len(array), goals[0].shape[-1:]))
        shape = goal.shape if form in ("class", "step class") else (len(goal), goal.shape[1:])
        if shape != wanted:
            raise ShapeError(f"target {n} of form {form!r} has shape {goal.shape} for {len(array)} steps")
        if not np.isfinite(goal).all():
            raise NonFiniteError(f"target {n} has NaN or infinity; drop it")
    if form in ("step labels", "step values"):
        if form == "step labels" and not all(np.isin(goal, (0, 1)).all() for goal in goals):
            raise ParameterError("step labels must be 0 or 1")
        return int(goals[0].shape[1])
    flat = np.concatenate([np.atleast_1d(goal) for goal in goals])
    if not np.equal(flat, np.rint(flat)).all() or flat.min() < 0:
        raise ParameterError(f"classes must be whole numbers 0, 1, ..., got {flat.min():g} .. {flat.max():g}")
    return int(flat.max()) + 1


def file_in_package(package: str, *parts: str) -> Path:
    """Return the path of a file or folder inside a package, which is looked up but not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ParameterError(f"this data set is read from the package {package!r}: {INSTALL}")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    found = [folder.joinpath(*parts) for folder in folders if folder.joinpath(*parts).exists()]
    if not found:
        raise FileError(
            f"no {'/'.join(parts)} in the installed {package} ({folders[0]}); reinstall it: {INSTALL}"
        )
    return found[0]
