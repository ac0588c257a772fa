"""Folk songs: what ABC files say, which songs are kept, and what a step holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hoplens as hl
from hoplens.data.building import file_in_package
from hoplens.data.folksongs import KEYS, SongNote, _all_songs, notes_of, read_abc

FOLDER = ("music21", "corpus", "essenFolksong")
TUNE = """X:1
T: Example
M: 3/4
L: 1/8
K: C
C2D2E2 | F2G2A2 | B2c2d2 | e6
"""


def pitches(key: str, body: str) -> list[int | None]:
    song = notes_of(key, body)
    assert song is not None
    return [note.pitch for note in song]


def test_accidentals_hold_until_the_bar_ends_in_every_octave() -> None:
    assert pitches("C", "^F F f | F _B, B") == [66, 66, 78, 65, 58, 70]
    assert pitches("G", "F =F f | F") == [71, 70, 82, 71]  # F sharp, up to the tonic C by five semitones
    assert pitches("Bb", "B E c'") == [72, 65, 86]


def test_lengths_rests_and_ties() -> None:
    assert notes_of("C", "C2- | C4 z3 D-E") == (
        SongNote(60, 6),
        SongNote(None, 3),
        SongNote(62, 1),
        SongNote(64, 1),
    )


@pytest.mark.parametrize(
    ("key", "body"), [("Am", "C"), ("none", "C"), ("C", "(3CDE"), ("C", "[CE]"), ("C", "C0")]
)
def test_what_is_not_read_is_left_out(key: str, body: str) -> None:
    assert notes_of(key, body) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "number"), [("altdeu10", 2), ("altdeu10", 40), ("erk10", 7), ("han1", 30)])
def test_songs_sound_as_music21_says(name: str, number: int) -> None:
    from music21 import converter

    header, body = read_abc(file_in_package(*FOLDER, f"{name}.abc"))[number]
    lines = [f"{key}: {header[key]}" for key in "TMLK"]
    # music21 takes a file without its version to repeat accidentals, which these files do not
    score = converter.parse("\n".join(["%abc-2.1", "X: 1", *lines, body]), format="abc")
    theirs = [item.pitch.midi for item in score.stripTies().flatten().notes]
    found = [pitch for pitch in pitches(header["K"], body) if pitch is not None]
    up = found[0] - theirs[0]
    assert abs(up) <= 6
    assert (up + 7 * KEYS[header["K"]]) % 12 == 0
    assert found == [pitch + up for pitch in theirs]


def test_steps_hold_pitch_length_and_rest() -> None:
    data = hl.data.folksongs()
    assert data.input_names == ("pitch", "length", "rest")
    raw = (data.train.inputs * data.scale + data.mean)[data.train.mask]
    assert torch.allclose(raw[:, 0], raw[:, 0].round(), atol=1e-4)
    assert (raw[:, 1] > -1e-4).all()
    assert torch.allclose(raw[:, 2], raw[:, 2].round(), atol=1e-5)
    assert int(data.train.lengths.min()) >= 16
    shares = torch.bincount(data.test.targets) / len(data.test)
    assert 0.6 < float(shares[0]) < 0.63  # as the guide says
    assert hl.data.folksongs(length=16).length == 16
    with pytest.raises(hl.errors.ParameterError, match="length must be a whole number of at least 16"):
        hl.data.folksongs(length=8)


def tunes(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.abc").write_text(text, encoding="utf-8")
    return folder


def test_short_variant_and_metreless_songs_are_left_out(tmp_path: Path) -> None:
    notes = "C2D2E2 | F2G2A2 | B2c2d2 | e6 | d2c2B2 | G6 | C2C2E2"
    long = TUNE.replace("C2D2E2 | F2G2A2 | B2c2d2 | e6", notes)
    other = long.replace(notes, "G4E2 | c4z2 | d2B2G2 | A4F2 | G4E2 | D2E2F2 | E6 | D2G2B2")
    higher = long.replace(notes, notes.replace("C2D2", "D2E2")).replace("X:1", "X:2")
    folder = tunes(
        tmp_path,
        a=TUNE + "\n" + long + "\n" + higher,
        b=other.replace("3/4", "6/8")
        + "\n"
        + other.replace("3/4", "none")
        + "\n"
        + other.replace("3/4", "5/4"),
        test0=other.replace("G4E2", "A4E2").replace("3/4", "2/4"),
    )
    songs, labels = _all_songs(folder, 64)
    assert labels == (1, 2)
    assert [len(song) for song in songs] == [17, 18]


def test_an_empty_or_damaged_corpus_takes_one_line(tmp_path: Path) -> None:
    with pytest.raises(hl.errors.FileError, match=r"no songs in .*reinstall music21") as caught:
        _all_songs(tmp_path, 64)
    assert "\n" not in str(caught.value)
    (tmp_path / "a.abc").write_bytes(b"X:1\n\xff\xfe")
    with pytest.raises(hl.errors.FileError, match="not text"):
        _all_songs(tmp_path, 32)
