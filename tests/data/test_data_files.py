"""Readers of `.ts` and `.mxl` files: right on what other readers read, one line on damage."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hoplens as hl
from hoplens.data.building import file_in_package
from hoplens.data.chorales import _all_chords, chords_of, read_mxl
from hoplens.data.digits import _table

TS = """# a comment
@problemName Toy
@timeStamps false
@classLabel true up down
@data
1,2,3:4,5,6:up
1.5,-2e-1:0,1:down

"""


def write(folder: Path, text: str) -> Path:
    path = folder / "toy.ts"
    path.write_text(text, encoding="utf-8")
    return path


def test_ts_files_are_read(tmp_path: Path) -> None:
    series, labels = hl.data.read_ts(write(tmp_path, TS))
    assert labels == ["up", "down"]
    assert np.array_equal(series[0], [[1, 4], [2, 5], [3, 6]])
    assert np.array_equal(series[1], [[1.5, 0], [-0.2, 1]])


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("1,2,3:", "1,2,x:", "line 6: something that is not a number"),
        ("1,2,3:", "1,?,3:", "line 6: something that is not a number"),
        ("1,2,3:", "1,NaN,3:", "line 6: a missing or infinite value"),
        ("1,2,3:", "1,2:", "line 6: dimensions of 2, 3 steps"),
        ("1,2,3:4,5,6:up", "up", "line 6: dimensions of no steps"),
        (":0,1:down", ":down", "line 7: 1 dimensions after 2"),
        (":0,1:down", ":0,1:left", "line 7: unknown class label 'left'"),
        (":0,1:down", ":0,1", "line 7: unknown class label '0,1'"),
        ("@data\n", "", "line 5: expected a header line or @data"),
        ("@timeStamps false", "@timeStamps true", "time stamps"),
        ("@classLabel true up down", "@classLabel false", "no @classLabel line"),
    ],
)
def test_damaged_ts_files_take_one_line(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert old in TS
    with pytest.raises(hl.errors.FileError, match=what) as caught:
        hl.data.read_ts(write(tmp_path, TS.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_ts_files_without_content(tmp_path: Path) -> None:
    with pytest.raises(hl.errors.FileError, match="no @data line"):
        hl.data.read_ts(write(tmp_path, "# nothing\n"))
    with pytest.raises(hl.errors.FileError, match="holds no series"):
        hl.data.read_ts(write(tmp_path, TS.split("1,2,3")[0]))
    with pytest.raises(hl.errors.FileError, match="no file"):
        hl.data.read_ts(tmp_path / "absent.ts")
    (tmp_path / "toy.ts").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(hl.errors.FileError, match="not text"):
        hl.data.read_ts(tmp_path / "toy.ts")


def test_a_file_that_a_package_lacks_is_named() -> None:
    with pytest.raises(hl.errors.FileError, match=r"no corpus/brahms in the installed music21"):
        file_in_package("music21", "corpus", "brahms")


def test_damaged_digits(tmp_path: Path) -> None:
    path = tmp_path / "digits.csv.gz"
    for content in (
        b"not gzip",
        gzip.compress(b"1,2,x\n"),
        gzip.compress(b"1,2,3\n"),
        gzip.compress(b"1\n" * 9)[:20],
    ):
        path.write_bytes(content)
        with pytest.raises(hl.errors.FileError, match="reinstall scikit-learn"):
            _table(path)


def music21_chords(path: Path, step: float) -> list[set[int]]:
    """What music21 says sounds every ``step`` quarters."""
    from music21 import converter

    score = converter.parse(path)
    notes = [
        (float(n.offset), float(n.offset + n.quarterLength), pitch.midi)
        for part in score.parts
        for n in part.flatten().notes
        for pitch in n.pitches
    ]
    end = max(stop for _, stop, _ in notes)
    moments = np.arange(0, end - 1e-6, step)
    return [{p for start, stop, p in notes if start <= t + 1e-6 and stop > t + 1e-6} for t in moments]


# a plain one, one with pieces of bars and repeats, one with chords, backups or triplets, a newer file format
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bwv269", "bwv66.6", "bwv113.8", "bwv248.12-2"])
def test_chorales_sound_as_music21_says(name: str) -> None:
    path = file_in_package("music21", "corpus", "bach", f"{name}.mxl")
    score = read_mxl(path)
    chords = chords_of(score, 0.5)
    assert chords is not None
    from hoplens.data.chorales import transposition

    up = transposition(score.sharps)
    theirs = [{pitch + up for pitch in chord} for chord in music21_chords(path, 0.5)]
    assert list(map(set, chords)) == [chord for chord in theirs if chord]


def mxl(folder: Path, score: str, *, container: str = "score.xml") -> Path:
    path = folder / "toy.mxl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "META-INF/container.xml",
            f'<container><rootfiles><rootfile full-path="{container}"/></rootfiles></container>',
        )
        archive.writestr("score.xml", score)
    return path


PARTS = "".join(
    f'<score-part id="P{n}"><part-name>{v}</part-name></score-part>' for n, v in enumerate(["Horn", "Bass"])
)
SCORE = f"""<score-partwise><part-list>{PARTS}</part-list>
<part id="P0"><measure><attributes><divisions>2</divisions><key><fifths>-1</fifths></key></attributes>
<note><grace/><pitch><step>A</step><octave>4</octave></pitch></note>
<note><pitch><step>B</step><alter>-1</alter><octave>3</octave></pitch><duration>2</duration></note>
<note><chord/><pitch><step>D</step><octave>4</octave></pitch><duration>2</duration></note>
<backup><duration>2</duration></backup><forward><duration>1</duration></forward>
<note><pitch><step>F</step><octave>4</octave></pitch><duration>1</duration></note></measure>
<measure><note><rest/><duration>2</duration></note></measure></part>
<part id="P1"><measure><attributes><divisions>3</divisions></attributes>
<note><pitch><step>C</step><octave>2</octave></pitch><duration>6</duration></note></measure>
<measure><note><pitch><step>G</step><octave>2</octave></pitch><duration>3</duration></note></measure></part>
</score-partwise>"""


def test_the_parts_of_the_format_are_understood(tmp_path: Path) -> None:
    score = read_mxl(mxl(tmp_path, SCORE))
    assert score.names == ("Horn", "Bass")
    assert score.sharps == -1
    assert score.length == 3.0  # the first bar lasts as long as its longest part
    assert score.parts[0] == ((0.0, 1.0, 58), (0.0, 1.0, 62), (0.5, 1.0, 65))
    assert score.parts[1] == ((0.0, 2.0, 36), (2.0, 3.0, 43))


def test_damaged_scores_take_one_line(tmp_path: Path) -> None:
    good = mxl(tmp_path, SCORE).read_bytes()
    bad = {
        "no zip": b"PK nothing",
        "cut": good[: len(good) // 2],
        "no such score": mxl(tmp_path, SCORE, container="other.xml").read_bytes(),
        "no xml": mxl(tmp_path, SCORE[:-20]).read_bytes(),
        "no number": mxl(tmp_path, SCORE.replace("<divisions>2", "<divisions>two")).read_bytes(),
        "no divisions": mxl(tmp_path, SCORE.replace("<divisions>2", "<divisions>0")).read_bytes(),
        "no such pitch": mxl(tmp_path, SCORE.replace("<step>F", "<step>H")).read_bytes(),
        "no parts": mxl(tmp_path, "<score-partwise/>").read_bytes(),
        "no duration": mxl(tmp_path, SCORE.replace("<duration>6</duration>", "")).read_bytes(),
    }
    for what, content in bad.items():
        path = tmp_path / "bad.mxl"
        path.write_bytes(content)
        with pytest.raises(hl.errors.FileError, match="as compressed MusicXML") as caught:
            read_mxl(path)
        assert "\n" not in str(caught.value), what


def test_an_empty_corpus_and_repeated_chorales(tmp_path: Path) -> None:
    with pytest.raises(hl.errors.FileError, match="no chorales in"):
        _all_chords(tmp_path, 1.0)
    source = file_in_package("music21", "corpus", "bach")
    for n, name in enumerate(("bwv269", "bwv269", "bwv66.6")):
        (tmp_path / f"{n}.mxl").write_bytes((source / f"{name}.mxl").read_bytes())
    assert len(_all_chords(tmp_path, 1.0)) == 2
