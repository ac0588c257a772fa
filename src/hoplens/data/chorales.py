"""Bach's chorales, chord by chord, from the compressed MusicXML that the package music21 carries."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import INSTALL, Origin, assemble, file_in_package, split_three
from hoplens.data.sets import SequenceData
from hoplens.errors import FileError, check_count, check_number
from hoplens.files import check_archive, regular_file
from hoplens.seeds import split_generator

VOICES = ("soprano", "alto", "tenor", "bass")
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
PITCHES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
WINDOW = 6  # chords; two chorales rarely share six in a row unless one is the other's copy
SHARED = 0.5
ORIGIN = Origin(
    "J. S. Bach's four-part chorales, most as encoded for Margaret Greentree's collection; files that the "
    "package music21 carries (music21/corpus/bach)",
    "the music is in the public domain; the encodings come with music21's permission to distribute them, see "
    "music21/corpus/license.txt",
    "M. S. Cuthbert, C. Ariza, music21: a toolkit for computer-aided musicology and symbolic music data, "
    "ISMIR 2010, 637-642",
)
Chords = tuple[frozenset[int], ...]


class Note(NamedTuple):
    """A pitch (MIDI number) that sounds from ``start`` to before ``end``, in quarters from the beginning."""

    start: float
    end: float
    pitch: int


@dataclass(frozen=True)
class Score:
    """The notes of each part, their names, the first key signature (sharps, or minus flats), the length."""

    parts: tuple[tuple[Note, ...], ...]
    names: tuple[str, ...]
    sharps: int
    length: float


def chorales(
    *, length: int = 64, step: float = 1.0, seed: int = 0, fractions: Sequence[float] | None = None
) -> SequenceData:
    """Load Bach's chorales: from the chords so far to the pitches of the next one.

    A chord is what sopranos, altos, tenors and basses sing at a moment, every ``step`` quarter notes; its
    code has a 1 for each sounding pitch. Moments at which all four are silent are left out. Every chorale is
    transposed by at most six semitones to the key signature without accidentals, so C is the tonic of all in
    major and A of those in minor: pitch names then mean degrees of the scale, and one network need not learn
    the same progression twelve times. Files that repeat another (more than half of their runs of six chords
    are in files before) are left out; pieces of one chorale lie in one split.

    Parameters
    ----------
    length : int, default 64
        Longer chorales are cut into pieces of nearly the same size of at most so many steps.
    step : float, default 1
        Quarter notes from one chord to the next; 0.5 takes every eighth, where most chords repeat.
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test, of chorales.

    Returns
    -------
    SequenceData
        Of form "step labels". Inputs and outputs are the pitches that occur, named as "C4" (middle C), lowest
        first; codes are not standardised.

    Raises
    ------
    ParameterError
        If the package music21 is missing, or options are out of range.
    FileError
        If its corpus was taken out, or one of its files is damaged.
    """
    longest, quarters = check_count("length", length), check_number("step", step, above=0.0, most=8.0)
    pieces = _all_chords(file_in_package("music21", "corpus", "bach"), quarters)
    parts = split_three(np.zeros(len(pieces)), fractions, split_generator(seed), names="chorales")
    pitches = [pitch for piece in pieces for chord in piece for pitch in chord]
    low, high = min(pitches), max(pitches)
    inputs: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.float32]] = []
    rows = []
    for part in parts:
        first = len(inputs)
        for n in part:
            code = _code(pieces[n], low, high)
            cuts = np.array_split(np.arange(len(code) - 1), -(-(len(code) - 1) // longest))
            inputs += [code[cut] for cut in cuts]
            targets += [code[cut + 1] for cut in cuts]
        rows.append(np.arange(first, len(inputs)))
    names = [f"{PITCHES[pitch % 12]}{pitch // 12 - 1}" for pitch in range(low, high + 1)]
    return assemble(
        inputs,
        targets,
        (rows[0], rows[1], rows[2]),
        ORIGIN,
        name="chorales",
        form="step labels",
        input_names=names,
        output_names=names,
        standardise=False,
    )


def transposition(sharps: int) -> int:
    """Return the semitones (-6 .. 6) that lead from a key signature to the one without accidentals."""
    up = (-7 * sharps) % 12
    return up - 12 if up > 6 else up


def chords_of(score: Score, step: float) -> Chords | None:
    """Return the pitches that the four voices sing every ``step`` quarters, or None without four voices."""
    firsts = [name.lower().split()[0] if name else "" for name in score.names]
    if all(firsts.count(voice) == 1 for voice in VOICES):
        voices = [score.parts[firsts.index(voice)] for voice in VOICES]
    elif len(score.parts) == len(VOICES):
        voices = list(score.parts)
    else:
        return None
    up, slack = transposition(score.sharps), 1e-6  # slack: triplets are sums of thirds
    sounding: list[set[int]] = [set() for _ in range(int(np.ceil(score.length / step - slack)))]
    for note in (note for voice in voices for note in voice):
        for moment in range(int(np.ceil(note.start / step - slack)), int(np.ceil(note.end / step - slack))):
            sounding[moment].add(note.pitch + up)
    return tuple(frozenset(chord) for chord in sounding if chord)


@lru_cache(maxsize=2)  # a few megabytes; another seed then takes no time
def _all_chords(folder: Path, step: float) -> tuple[Chords, ...]:
    files = sorted(folder.glob("*.mxl"))
    if not files:
        raise FileError(f"no chorales in {str(folder)!r}; reinstall music21 with its corpus: {INSTALL}")
    found: list[Chords] = []
    seen: set[Chords] = set()
    for file in files:
        chords = chords_of(read_mxl(file), step)
        if chords is None or len(chords) <= WINDOW:
            continue
        runs = {chords[n : n + WINDOW] for n in range(len(chords) - WINDOW + 1)}
        if len(runs & seen) <= SHARED * len(runs):
            found.append(chords)
        seen |= runs
    return tuple(found)


def _code(chords: Chords, low: int, high: int) -> NDArray[np.float32]:
    code = np.zeros((len(chords), high - low + 1), dtype=np.float32)
    for row, chord in zip(code, chords, strict=True):
        row[[pitch - low for pitch in chord]] = 1.0
    return code


def read_mxl(path: str | os.PathLike[str]) -> Score:
    """Read a `.mxl` file. Grace notes and unpitched notes are left out, repeats are not played twice."""
    file = regular_file(path, ".mxl file")
    check_archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            contents = ElementTree.fromstring(archive.read("META-INF/container.xml"))
            place = next(item for item in contents.iter() if item.tag.endswith("rootfile")).attrib[
                "full-path"
            ]
            root = ElementTree.fromstring(archive.read(place))
        return _score(root)
    except (
        OSError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError, NotImplementedError, RuntimeError,
        EOFError, LookupError, StopIteration, TypeError, ValueError, ZeroDivisionError,
    ) as error:  # fmt: skip
        raise FileError(
            f"cannot read {str(file)!r} as compressed MusicXML ({type(error).__name__}: {str(error)[:80]}); "
            "get the file again"
        ) from None


def _score(root: ElementTree.Element) -> Score:
    listed = {p.attrib["id"]: (p.findtext("part-name") or "").strip() for p in root.iter("score-part")}
    parts = root.findall("part")
    measures = [_measures(part) for part in parts]
    # a bar starts together in all parts: where one part leaves its end out, the longest counts
    bars = max(map(len, measures))
    lengths = (max(m[n][1] for m in measures if n < len(m)) for n in range(bars))
    starts = list(accumulate(lengths, initial=0.0))
    signature = root.findtext("part/measure/attributes/key/fifths")
    return Score(
        parts=tuple(
            tuple(
                Note(start + note.start, start + note.end, note.pitch)
                for start, (notes, _) in zip(starts, part, strict=False)
                for note in notes
            )
            for part in measures
        ),
        names=tuple(listed[part.attrib["id"]] for part in parts),
        sharps=int(signature or 0),
        length=starts[-1],
    )


def _measures(part: ElementTree.Element) -> list[tuple[list[Note], float]]:
    """Return the notes of each bar, from the bar's start, and its length."""
    found, divisions = [], 1
    for bar in part.iterfind("measure"):
        notes: list[Note] = []
        now = before = longest = 0.0
        for item in bar:
            if item.tag == "attributes":
                divisions = int(item.findtext("divisions") or divisions)
            if item.tag not in ("note", "backup", "forward"):
                continue
            inside = {child.tag: child for child in item}
            if "grace" in inside:
                continue
            lasts = int(inside["duration"].text or "") / divisions
            if item.tag == "backup":
                now -= lasts
                continue
            if "chord" in inside:  # sounds with the note before
                now = before
            before = now
            if "pitch" in inside:
                notes.append(Note(now, now + lasts, _midi(inside["pitch"])))
            now += lasts
            longest = max(longest, now)
        found.append((notes, longest))
    return found


def _midi(pitch: ElementTree.Element) -> int:
    inside = {child.tag: child.text or "" for child in pitch}
    return 12 * (int(inside["octave"]) + 1) + SEMITONES[inside["step"]] + round(float(inside.get("alter", 0)))
