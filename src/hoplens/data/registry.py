"""Load a data set by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hoplens.data.building import Origin
from hoplens.data.chorales import ORIGIN as CHORALES
from hoplens.data.chorales import chorales
from hoplens.data.control import CARTPOLE, PENDULUM, cartpole, pendulum
from hoplens.data.digits import DIGITS, digits
from hoplens.data.folksongs import ORIGIN as FOLKSONGS
from hoplens.data.folksongs import folksongs
from hoplens.data.narma import ORIGIN as NARMA
from hoplens.data.narma import narma
from hoplens.data.sets import SequenceData
from hoplens.data.text import ORIGIN as TEXT
from hoplens.data.text import text
from hoplens.data.ucr import APPLIANCES, MOTIONS, POWER, VOWELS, appliances, motions, power, vowels
from hoplens.errors import check_choice

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Entry:
    load: Callable[..., SequenceData]
    what: str
    form: str
    package: str
    origin: Origin


SETS = {
    "vowels": _Entry(
        vowels, "which of nine men says /ae/, from a frame's LPC coefficients", "class", "aeon", VOWELS
    ),
    "motions": _Entry(
        motions, "standing, running, walking or badminton, from a smart watch", "class", "aeon", MOTIONS
    ),
    "power": _Entry(
        power, "half-year of a day, from its 24 hours of electricity demand", "class", "aeon", POWER
    ),
    "appliances": _Entry(
        appliances, "kind of home appliance, from the power it draws", "class", "aeon", APPLIANCES
    ),
    "digits": _Entry(digits, "handwritten digit, pixel by pixel", "class", "scikit-learn", DIGITS),
    "digits-rows": _Entry(
        partial(digits, rows=True), "handwritten digit, row by row", "class", "scikit-learn", DIGITS
    ),
    "text": _Entry(text, "next character of English prose", "step class", "", TEXT),
    "chorales": _Entry(chorales, "next chord of a Bach chorale", "step labels", "music21", CHORALES),
    "folksongs": _Entry(
        folksongs, "duple, triple or compound metre of a folk song", "class", "music21", FOLKSONGS
    ),
    "cartpole": _Entry(cartpole, "an expert's push under a pole, speeds hidden", "step class", "", CARTPOLE),
    "pendulum": _Entry(
        pendulum, "an expert's torque on a pendulum, speed hidden", "step values", "", PENDULUM
    ),
    "narma": _Entry(narma, "state of a tenth-order system, from its random input", "step values", "", NARMA),
}


def names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    return tuple(SETS)


def load(name: str, *, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load a data set with its default options.

    Each set is also a function of its own, with all its options: ``hl.data.motions(every=4)``.

    Parameters
    ----------
    name : str
        One of `names`; `describe` says what they are.
    seed : int, default 0
        Draws the cut, and what else is drawn.
    fractions : three numbers, optional
        Training, validation and test. Default: the official test split where there is one, else what the
        set's own function says.

    Returns
    -------
    SequenceData

    Raises
    ------
    UnknownNameError
        For a set that does not exist, with the nearest one.
    ParameterError
        If the package that carries the set is missing, or fractions are wrong.
    FileError
        If a file is damaged.
    """
    return SETS[check_choice("data set", name, SETS)].load(seed=seed, fractions=fractions)


def describe() -> pd.DataFrame:
    """Return one row a data set: what is predicted, form, package that carries it, source, licence, citation.

    Returns
    -------
    DataFrame
        Indexed by name. Nothing is loaded.
    """
    import pandas as pd

    rows = {
        name: {
            "what": entry.what,
            "form": entry.form,
            "package": entry.package,
            "source": entry.origin.source,
            "licence": entry.origin.licence,
            "citation": entry.origin.citation,
        }
        for name, entry in SETS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")
