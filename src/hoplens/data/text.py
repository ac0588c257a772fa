"""English prose for character language models: the topics of Python's own help."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import Origin, assemble, check_fractions
from hoplens.data.sets import SequenceData
from hoplens.errors import ParameterError, check_count
from hoplens.seeds import split_generator

LETTERS = "abcdefghijklmnopqrstuvwxyz .,(0?"  # 0 is any number, ? any run of other characters
FRACTIONS = (0.8, 0.1, 0.1)
NAMES = {" ": "space", "0": "number", "?": "other"}
ORIGIN = Origin(
    f"the module pydoc_data.topics of Python {sys.version_info.major}.{sys.version_info.minor}; the text "
    "differs between Python versions",
    "PSF Licence Version 2",
    "Python Software Foundation, The Python Language Reference, https://docs.python.org/3/reference/",
)


def text(
    *, length: int = 64, windows: int = 4000, seed: int = 0, fractions: Sequence[float] | None = None
) -> SequenceData:
    """Load English prose, one character a step, to predict the next: the topics of Python's help.

    Letters are lower-cased, a number becomes one sign, white space one space, and every run of other
    characters but ``. , (`` another one: 32 signs, one-hot. Topics repeat each other's paragraphs, so each
    paragraph is kept where it comes first only. Whole topics go to one split each, by the seed, and windows
    lie side by side in them: none overlaps another, and no paragraph lies on both sides.

    Parameters
    ----------
    length : int, default 64
        Steps of a window.
    windows : int, default 4000
        At most so many in all splits together, drawn by the seed; the text gives about 5000 of 64 steps.
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, default (0.8, 0.1, 0.1)
        Training, validation and test, measured in characters as closely as whole topics allow.

    Returns
    -------
    SequenceData
        Of form "step class": the target of a step is the next character.

    Raises
    ------
    ParameterError
        For wrong fractions, or a window longer than the text of a split.

    Notes
    -----
    The text is part of the standard library and differs between Python versions, so figures do too.
    """
    shares = check_fractions(FRACTIONS if fractions is None else fractions)
    steps, most = check_count("length", length), check_count("windows", windows, least=3)
    generator = split_generator(seed)
    rows: list[NDArray[np.int64]] = []
    parts, start = [], 0
    for codes, share in zip(_cut_topics(shares, generator), shares, strict=True):
        whole = (len(codes) - 1) // steps
        if whole < 1:
            raise ParameterError(
                f"length {steps} leaves no window in a split of {len(codes)} characters; use a shorter one "
                "or other fractions"
            )
        kept = min(whole, max(1, round(most * share)))
        chosen = np.sort(generator.permutation(whole)[:kept])
        rows += [codes[n * steps : (n + 1) * steps + 1] for n in chosen]
        parts.append(np.arange(start, start + kept))
        start += kept
    eye = np.eye(len(LETTERS), dtype=np.float32)
    names = [NAMES.get(letter, letter) for letter in LETTERS]
    return assemble(
        [eye[row[:-1]] for row in rows],
        [row[1:] for row in rows],
        (parts[0], parts[1], parts[2]),
        ORIGIN,
        name="text",
        form="step class",
        input_names=names,
        output_names=names,
        standardise=False,
    )


def simplify(raw: str) -> str:
    """Write a text with the signs of `LETTERS` only."""
    spaced = " ".join(re.sub(r"\d+", "0", raw.lower()).split())
    return re.sub("[^a-z .,(0]+", "?", spaced)  # a whole run is one sign: rules of tables are no prose


def _topics() -> list[str]:
    """Return the topics in alphabetical order, each paragraph only where it comes first."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    found = []
    for name in sorted(topics):
        paragraphs = [simplify(p) for p in topics[name].split("\n\n")]
        fresh = [p for p in dict.fromkeys(paragraphs) if p and p not in seen]
        seen.update(fresh)
        if fresh:
            found.append(" ".join(fresh))
    return found


def _cut_topics(
    shares: tuple[float, float, float], generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Deal whole topics, the largest first, to splits by chance: the more room a split has, the likelier."""
    topics = _topics()
    order = generator.permutation(len(topics))
    order = order[np.argsort([-len(topics[n]) for n in order], kind="stable")]
    room = np.array(shares) * sum(map(len, topics))
    dealt: list[list[str]] = [[], [], []]
    for n in order:
        fits = np.where(room >= len(topics[n]), room, 0.0)
        weights = fits if fits.any() else np.maximum(room, 1.0)
        split = int(generator.choice(3, p=weights / weights.sum()))
        dealt[split].append(topics[n])
        room[split] -= len(topics[n])
    table = {letter: code for code, letter in enumerate(LETTERS)}
    return [np.array([table[letter] for letter in " ".join(part)], dtype=np.int64) for part in dealt]
