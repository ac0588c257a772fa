"""Handwritten digits as sequences of pixels or of rows, from the file that scikit-learn carries."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import Origin, assemble, file_in_package, split_three
from hoplens.data.sets import SequenceData
from hoplens.errors import FileError
from hoplens.seeds import split_generator

DIGITS = Origin(
    "UCI Machine Learning Repository, Optical Recognition of Handwritten Digits (doi:10.24432/C50P49), its "
    "test part of 1797 images of 8 x 8; the file that scikit-learn carries "
    "(sklearn/datasets/data/digits.csv.gz)",
    "CC BY 4.0 (UCI)",
    "E. Alpaydin, C. Kaynak, Cascading classifiers, Kybernetika 34 (1998) 369-374",
)


def digits(*, rows: bool = False, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load scikit-learn's 1797 digits of 8 x 8 pixels as sequences.

    Parameters
    ----------
    rows : bool, default False
        One pixel a step (64 steps, line by line from the top left), or one row of 8 pixels a step (8 steps).
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test, of each digit by itself. There is no official split; images of one
        writer may lie on both sides.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If scikit-learn is missing, or fractions are wrong.
    FileError
        If its file is damaged.
    """
    table = _table(file_in_package("sklearn", "datasets", "data", "digits.csv.gz"))
    images, labels = table[:, :64], table[:, 64].astype(int)
    width = 8 if rows else 1
    return assemble(
        list(images.reshape(len(images), -1, width)),
        labels,
        split_three(labels, fractions, split_generator(seed)),
        DIGITS,
        name="digits-rows" if rows else "digits",
        form="class",
        input_names=[f"column {n}" for n in range(8)] if rows else ["pixel"],
        output_names=[str(n) for n in range(10)],
    )


def _table(path: Path) -> NDArray[Any]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FileError(f"cannot read {str(path)!r} ({str(error)[:80]}); reinstall scikit-learn") from None
    if table.shape[1] != 65 or not np.isin(table[:, 64], np.arange(10)).all():
        raise FileError(f"{str(path)!r} does not hold 64 pixels and a digit a line; reinstall scikit-learn")
    return table
