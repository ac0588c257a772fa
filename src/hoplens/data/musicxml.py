"""A small reader of compressed MusicXML: what sounds when, in each part."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple
from xml.etree import ElementTree

from hoplens.errors import FileError
from hoplens.files import check_archive, regular_file

SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


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
