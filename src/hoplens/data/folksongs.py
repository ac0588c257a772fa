"""Folk songs of the Essen collection, note by note, from the ABC files that the package music21 carries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoplens.data.building import INSTALL, Origin, assemble, file_in_package, split_three
from hoplens.data.chorales import SEMITONES, transposition
from hoplens.data.sets import SequenceData
from hoplens.errors import FileError, check_count
from hoplens.seeds import split_generator

METRES = {
    "duple": ("2/4", "4/4", "2/2", "4/2", "4/1", "2/1", "4/8", "2/8"),
    "triple": ("3/4", "3/8", "3/2", "3/1"),
    "compound": ("6/8", "6/4", "6/2"),
}
KEYS = {
    "C": 0,
    "G": 1,
    "D": 2,
    "A": 3,
    "E": 4,
    "B": 5,
    "F#": 6,
    "F": -1,
    "Bb": -2,
    "Eb": -3,
    "Ab": -4,
    "Db": -5,
}
SHARPENED = "FCGDAEB"  # in the order in which key signatures take them; flats in the opposite one
FEWEST = 16  # notes of a song
RUN = 8  # notes; songs that share half of their runs of so many are variants of one another
SHARED = 0.5
SYMBOL = re.compile(r"([_^=]?)([A-Ga-gz])([,']*)(\d*)(-?)|(\|)|\s+")
ORIGIN = Origin(
    "Essen folksong collection (H. Schaffrath, E. Dahlig-Turek; songs of Germany, China and elsewhere), in "
    "ABC by S. Shlien; files that the package music21 carries (music21/corpus/essenFolksong)",
    "non-commercial use and distribution, see music21/corpus/essenFolksong/license.txt",
    "H. Schaffrath, The Essen folksong collection in the Humdrum Kern format, D. Huron (ed.), Center for "
    "Computer Assisted Research in the Humanities, 1995",
)


class SongNote(NamedTuple):
    """A MIDI pitch, or None for a rest, and how long it lasts, in the units of its song."""

    pitch: int | None
    length: int


Song = tuple[SongNote, ...]


def folksongs(*, length: int = 64, seed: int = 0, fractions: Sequence[float] | None = None) -> SequenceData:
    """Load folk songs: duple, triple or compound metre, from the notes without their bars.

    A step is a note or a rest: its pitch in semitones above middle C, after the song was transposed to the
    tonic C (a rest keeps the pitch before it); the base-2 logarithm of its length in units of the song's
    shortest note; and whether it is a rest. Tied notes are one. Songs with another, changing or no metre, or
    with fewer than 16 notes, are left out, and so are variants of songs before (more than half of their runs
    of eight notes, as intervals and lengths).

    Parameters
    ----------
    length : int, default 64
        At most so many notes, the first ones; at least 16.
    seed : int, default 0
        Draws the cut.
    fractions : three numbers, default (0.6, 0.2, 0.2)
        Training, validation and test, each metre by itself.

    Returns
    -------
    SequenceData

    Raises
    ------
    ParameterError
        If the package music21 is missing, or options are out of range.
    FileError
        If its corpus was taken out, or one of its files is damaged.

    Notes
    -----
    61 of 100 songs are in duple metre: what a network gets by knowing this alone. Whether a song was written
    in 6/8 or in 3/8 cannot always be heard.
    """
    most = check_count("length", length, least=FEWEST)
    songs, labels = _all_songs(file_in_package("music21", "corpus", "essenFolksong"), most)
    return assemble(
        [_steps(song) for song in songs],
        labels,
        split_three(labels, fractions, split_generator(seed), names="songs"),
        ORIGIN,
        name="folksongs",
        form="class",
        input_names=["pitch", "length", "rest"],
        output_names=tuple(METRES),
    )


def _steps(song: Song) -> NDArray[np.float64]:
    """Return pitch, log2 of the length and rest, (L, 3)."""
    shortest = min(note.length for note in song)
    pitch = next((note.pitch for note in song if note.pitch is not None), 60)
    rows = []
    for note in song:
        pitch = pitch if note.pitch is None else note.pitch
        rows.append((pitch - 60, np.log2(note.length / shortest), note.pitch is None))
    return np.array(rows, dtype=np.float64)


@lru_cache(maxsize=2)  # a few megabytes; another seed then takes no time
def _all_songs(folder: Path, most: int) -> tuple[tuple[Song, ...], tuple[int, ...]]:
    """Return the first ``most`` notes of each song, transposed, and the number of its metre."""
    metres = {sign: n for n, signs in enumerate(METRES.values()) for sign in signs}
    songs: list[Song] = []
    labels: list[int] = []
    seen: set[bytes] = set()
    for file in sorted(folder.glob("*.abc")):
        if file.name.startswith("test"):  # copies of other songs, for music21's own tests
            continue
        for header, body in read_abc(file):
            notes = notes_of(header.get("K", ""), body)
            if header.get("M") not in metres or notes is None or len(notes) < FEWEST:
                continue
            song = notes[:most]
            runs = _runs(song)
            if len(runs & seen) <= SHARED * len(runs):
                songs.append(song)
                labels.append(metres[header["M"]])
            seen |= runs
    if not songs:
        raise FileError(f"no songs in {str(folder)!r}; reinstall music21 with its corpus: {INSTALL}")
    return tuple(songs), tuple(labels)


def _runs(song: Song) -> set[bytes]:
    """Return all runs of `RUN` notes, as intervals and lengths relative to the song's shortest."""
    steps = _steps(song)
    steps[1:, 0] = np.diff(steps[:, 0])
    steps[0, 0] = 0
    code = steps.astype(np.float32)
    return {code[n : n + RUN].tobytes() for n in range(len(code) - RUN + 1)}


def read_abc(file: Path) -> list[tuple[dict[str, str], str]]:
    """Return the header lines by their letter, and the notes, of each tune of an ABC file."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise FileError(f"cannot read {str(file)!r} ({why}); reinstall music21: {INSTALL}") from None
    tunes: list[tuple[dict[str, str], list[str]]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if key == "X" and colon:
            tunes.append(({}, []))
        elif tunes and colon and len(key) == 1 and key.isalpha():
            tunes[-1][0].setdefault(key, value.strip())
        elif tunes:
            tunes[-1][1].append(line)
    return [(header, "\n".join(lines)) for header, lines in tunes]


def notes_of(key: str, body: str) -> Song | None:
    """Return the notes of a one-voice tune, transposed to the tonic C; None for what is not read.

    ABC: letters are notes of the key signature, an accidental holds in all octaves until the bar ends, ``,``
    and ``'`` shift by octaves, a number is a length, ``-`` ties. Tuplets, chords, ornaments and keys named as
    minor are not read (the collection writes minor songs with accidentals).
    """
    if key not in KEYS:
        return None
    sharps = KEYS[key]
    signature = dict.fromkeys(SHARPENED[: max(sharps, 0)], 1)
    signature |= dict.fromkeys(SHARPENED[len(SHARPENED) + min(sharps, 0) :], -1)
    up = transposition(sharps)
    bar: dict[str, int] = {}
    notes: list[SongNote] = []
    place, tied = 0, False
    while place < len(body):
        symbol = SYMBOL.match(body, place)
        if symbol is None:
            return None
        place = symbol.end()
        accidental, letter, octaves, length, tie, line = symbol.groups()
        if line:
            bar = {}
        if not letter:
            continue
        name = letter.upper()
        if accidental:
            bar[name] = {"_": -1, "^": 1, "=": 0}[accidental]
        octave = letter.islower() + octaves.count("'") - octaves.count(",")
        bent = bar.get(name, signature.get(name, 0))
        pitch = None if letter == "z" else 60 + SEMITONES[name] + 12 * octave + bent + up
        note = SongNote(pitch, int(length or 1))
        if note.length < 1:
            return None
        if tied and notes[-1].pitch == pitch:
            note = SongNote(pitch, notes.pop().length + note.length)
        notes.append(note)
        tied = bool(tie)
    return tuple(notes)
