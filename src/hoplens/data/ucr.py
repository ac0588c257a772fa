"""Series of the UCR and UEA archives: a reader of `.ts` files, and four sets that aeon carries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import Origin, assemble, file_in_package, split_official
from hoplens.data.sets import SequenceData
from hoplens.errors import FileError, ParameterError, check_count
from hoplens.files import regular_file
from hoplens.seeds import split_generator

Series = list[NDArray[np.float64]]
AEON = "files that the package aeon carries (aeon/datasets/data/{})"
ARCHIVE = "A. Bagnall et al., The UEA multivariate time series classification archive, 2018, arXiv:1811.00075"
VOWELS = Origin(
    "UCI Machine Learning Repository, Japanese Vowels (doi:10.24432/C5NS47): nine men say /ae/, 12 LPC "
    "cepstrum coefficients every 6.4 ms; " + AEON.format("JapaneseVowels"),
    "CC BY 4.0 (UCI)",
    "M. Kudo, J. Toyama, M. Shimbo, Multidimensional curve classification using passing-through regions, "
    "Pattern Recognition Letters 20 (1999) 1103-1111",
)
MOTIONS = Origin(
    "UEA archive, BasicMotions: accelerometer and gyroscope of a smart watch, ten times a second; "
    + AEON.format("BasicMotions"),
    "none stated by the archive",
    ARCHIVE,
)
POWER = Origin(
    "UCR archive, ItalyPowerDemand: Italy's electricity demand over 24 hours, October to March against April "
    "to September; " + AEON.format("ItalyPowerDemand"),
    "none stated by the archive",
    "E. Keogh, L. Wei, X. Xi, S. Lonardi, J. Shieh, S. Sirowy, Intelligent icons: integrating lite-weight "
    "data mining and visualization into GUI operating systems, ICDM 2006; H. A. Dau et al., The UCR time "
    "series archive, 2018, arXiv:1810.07758",
)
APPLIANCES = Origin(
    "UCR archive, ACSF1: the power that ten kinds of home appliances draw; " + AEON.format("ACSF1"),
    "none stated by the archive",
    "C. Gisler, A. Ridi, D. Zufferey, O. Abou Khaled, J. Hennebert, Appliance consumption signature database "
    "and recognition test protocols, WoSSPA 2013, 336-341; H. A. Dau et al., The UCR time series archive, "
    "2018, arXiv:1810.07758",
)


def read_ts(path: str | os.PathLike[str]) -> tuple[Series, list[str]]:
    """Read a `.ts` file with class labels, as the UCR and UEA archives give them.

    Parameters
    ----------
    path : path

    Returns
    -------
    series : list of N float64 arrays (L_n, I)
    labels : list of N str

    Raises
    ------
    FileError
        If the file is missing, has time stamps, no class labels, or a line that does not hold as many numbers
        in every dimension and a label that the header knows. The line is named.
    """
    file = regular_file(path, ".ts file")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise FileError(f"cannot read {str(file)!r} ({why}); pass a .ts file") from None
    header, start = _header(lines, file)
    known = header["classlabel"].split()[1:]
    series: Series = []
    labels: list[str] = []
    for number, line in enumerate(lines[start:], start + 1):
        if line.strip():
            values, label = _row(line, number, file, known)
            if series and values.shape[1] != series[0].shape[1]:
                raise _damaged(file, number, f"{values.shape[1]} dimensions after {series[0].shape[1]}")
            series.append(values)
            labels.append(label)
    if not series:
        raise FileError(f"{str(file)!r} holds no series; get the file again")
    return series, labels


def _damaged(file: Path, number: int, what: str) -> FileError:
    return FileError(f"{str(file)!r}, line {number}: {what}; get the file again")


def _header(lines: list[str], file: Path) -> tuple[dict[str, str], int]:
    """Return the entries of the header, keys in lower case, and the number of its lines."""
    entries: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.lower() == "@data":
            if entries.get("timestamps", "false").lower() == "true":
                raise FileError(f"{str(file)!r} has time stamps; give series at even steps")
            if not entries.get("classlabel", "").lower().startswith("true "):
                raise FileError(
                    f"{str(file)!r} has no @classLabel line with labels; give a classification set"
                )
            return entries, number
        if text.startswith("@"):
            key, _, value = text[1:].partition(" ")
            entries[key.lower()] = value.strip()
        elif text and not text.startswith("#"):
            raise _damaged(file, number, "expected a header line or @data")
    raise FileError(f"{str(file)!r} has no @data line; pass a .ts file")


def _row(line: str, number: int, file: Path, known: Sequence[str]) -> tuple[NDArray[np.float64], str]:
    *channels, label = line.strip().split(":")
    if label.strip() not in known:
        raise _damaged(file, number, f"unknown class label {label.strip()[:20]!r}")
    try:
        values = [np.array(channel.split(","), dtype=np.float64) for channel in channels]
    except ValueError:
        raise _damaged(file, number, "something that is not a number") from None
    if not values or len({len(v) for v in values}) > 1:
        raise _damaged(file, number, f"dimensions of {', '.join(str(len(v)) for v in values) or 'no'} steps")
    whole = np.stack(values, axis=1)
    if not np.isfinite(whole).all():
        raise _damaged(file, number, "a missing or infinite value")
    return whole, label.strip()


def _load(
    name: str,
    folder: str,
    origin: Origin,
    classes: dict[str, str],
    input_names: Sequence[str],
    *,
    seed: int,
    fractions: Sequence[float] | None,
    every: int = 1,
) -> SequenceData:
    """Load a set of aeon's; ``classes`` gives each label of the file its name, in the order of outputs."""
    parts: list[tuple[Series, list[int]]] = []
    order = list(classes)
    for half in ("TRAIN", "TEST"):
        series, labels = read_ts(file_in_package("aeon", "datasets", "data", folder, f"{folder}_{half}.ts"))
        parts.append((series, [order.index(label) for label in labels]))
    (train, train_labels), (test, test_labels) = parts
    rows: list[NDArray[Any]] = [s[::every] for s in (*train, *test)]
    return assemble(
        rows,
        [*train_labels, *test_labels],
        split_official(train_labels, test_labels, fractions, split_generator(seed)),
        origin,
        name=name,
        form="class",
        input_names=input_names,
        output_names=tuple(classes.values()),
    )


def vowels(*, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load JapaneseVowels: which of nine men says /ae/, from 7 to 29 frames of 12 LPC cepstrum coefficients.

    Parameters
    ----------
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, optional
        None (default) keeps the 370 official test series and holds a fifth of the 270 training series out
        for validation. Training, validation and test fractions pool all series and cut anew, each class by
        itself.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If the package aeon is missing, or fractions are wrong.
    """
    speakers = {str(n): f"speaker {n}" for n in range(1, 10)}
    names = [f"LPC {n}" for n in range(1, 13)]
    return _load("vowels", "JapaneseVowels", VOWELS, speakers, names, seed=seed, fractions=fractions)


def motions(*, every: int = 1, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load BasicMotions: standing, running, walking or badminton, from 10 seconds of a smart watch's sensors.

    Parameters
    ----------
    every : int, default 1
        Take every so-many-th of the 100 steps; what lies between is dropped, not averaged.
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, optional
        As in `vowels`; the official halves have 40 series each. With only 8 series a class left for training,
        methods are compared better on cuts of all 80, e.g. ``(0.5, 0.2, 0.3)``.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If the package aeon is missing, fractions are wrong, or ``every`` leaves fewer than 2 steps.
    """
    if check_count("every", every) > 50:
        raise ParameterError(f"every must leave at least 2 of the 100 steps (1 .. 50), got {every}")
    activities = {name: name.lower() for name in ("Standing", "Running", "Walking", "Badminton")}
    names = [f"{sensor} {axis}" for sensor in ("acceleration", "rotation") for axis in "xyz"]
    return _load(
        "motions", "BasicMotions", MOTIONS, activities, names, seed=seed, fractions=fractions, every=every
    )


def power(*, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load ItalyPowerDemand: summer or winter half-year, from 24 hourly values of a day's electricity demand.

    Parameters
    ----------
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, optional
        As in `vowels`; the official split has 67 training and 1029 test series. 13 validation series choose
        nothing reliably, so methods are compared better on cuts of all 1096, e.g. ``(0.6, 0.2, 0.2)``.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If the package aeon is missing, or fractions are wrong.

    Notes
    -----
    The archive standardised each series by itself (mean 0, variance 1), so level and spread tell nothing.
    """
    halves = {"1": "October to March", "2": "April to September"}
    return _load("power", "ItalyPowerDemand", POWER, halves, ["demand"], seed=seed, fractions=fractions)


def appliances(*, every: int = 1, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load ACSF1: which of ten kinds of home appliances draws this power, from 1460 steps.

    Parameters
    ----------
    every : int, default 1
        Take every so-many-th of the 1460 steps; what lies between is dropped, not averaged.
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, optional
        As in `vowels`; the official halves have 100 series each, ten of each kind, which leaves 8 a kind for
        training. Methods are compared better on cuts of all 200, e.g. ``(0.6, 0.2, 0.2)``.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If the package aeon is missing, fractions are wrong, or ``every`` leaves fewer than 2 steps.

    Notes
    -----
    The archive standardised each series by itself, and names the kinds (phone chargers, coffee machines,
    computers, refrigerators, Hi-Fi systems, lamps, laptop chargers, microwave ovens, printers, televisions)
    without saying which label is which, so outputs are called by their labels, "kind 0" to "kind 9".
    """
    if check_count("every", every) > 730:
        raise ParameterError(f"every must leave at least 2 of the 1460 steps (1 .. 730), got {every}")
    kinds = {str(n): f"kind {n}" for n in range(10)}
    return _load(
        "appliances", "ACSF1", APPLIANCES, kinds, ["power"], seed=seed, fractions=fractions, every=every
    )
