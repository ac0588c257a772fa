"""What came of a search: measured once more on held-back sequences, beside the model as given."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.data.sets import Split
from hoplens.errors import ExportError
from hoplens.export import event_cost
from hoplens.export.int8_onnx import export_int8
from hoplens.export.latency import RUNTIMES, measure_latency, time_files
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.studies.compression.files import losses, run_onnx
from hoplens.studies.compression.search import MODEL, ONNX, CandidateRecord, CandidateSearch, Choice
from hoplens.studies.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

INT8 = "model-int8.onnx"
TIMED = 64  # sequences of the larger batch
DOUBT = 0.05
COUNTED = 64  # sequences that events are counted on


@dataclass(frozen=True)
class Line:
    """One row of the table before / after; numbers, or None where there is none."""

    label: str
    before: float | None
    after: float | None
    unit: str = ""

    @property
    def ratio(self) -> float | None:
        """After over before."""
        return self.after / self.before if self.before and self.after is not None else None


@dataclass(frozen=True, eq=False)
class Result:
    """All measured figures of a finished search.

    Attributes
    ----------
    lines : tuple of Line
        Sizes, counts, latencies and events, before and after.
    score_name : str
        "accuracy", or "explained variance" (1 minus the error's share).
    score_before, score_after : float
        On ``n_report`` sequences that neither training nor the choice has seen.
    loss : Interval
        Their difference, with its 95 % bootstrap interval over sequences.
    n_choose, n_report : int
    size : float
        Of the chosen ONNX file, as a share of that of the model as given.
    int8_score : float or None
        Of the file that multiplies integers, on the same sequences.
    table : DataFrame
        All candidates: name, form, bytes, size, weights, nonzero, multiplications, ms (one sequence in
        onnxruntime: the candidate's own file, all files taking turns), score (where the choice was
        made), chosen.
    """

    lines: tuple[Line, ...]
    score_name: str
    score_before: float
    score_after: float
    loss: Interval
    n_choose: int
    n_report: int
    size: float
    int8_score: float | None
    table: pd.DataFrame


def torch_bytes(model: RecurrentModel) -> bytes:
    """Return a state_dict as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().clone() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()


def measure(
    search: CandidateSearch,
    records: Sequence[CandidateRecord],
    choice: Choice,
    report: Split,
    *,
    seconds: float,
) -> Result:
    """Measure the chosen candidate and the model as given on the sequences held back.

    Parameters
    ----------
    search : CandidateSearch
    records : sequence of CandidateRecord
        Of ``search``; the first is the model as given.
    choice : Choice
    report : Split
    seconds : float
        How long each comparison of latencies takes.
    """
    given, chosen = records[0], choice.record
    before, after = (
        losses(run_onnx(search.place(r.candidate) / ONNX, report), report.targets) for r in (given, chosen)
    )
    int8 = _int8(search, chosen)
    whole = search.folder / INT8
    lines = [*_sizes(search, given, chosen, None if int8 is None else whole.stat().st_size)]
    lines += _counts(search, given, chosen, report)
    ms = _file_times(search, records, whole if int8 is not None else None, report, seconds)
    lines += _latencies(search, given, chosen, int8, report, ms, seconds)
    return Result(
        lines=tuple(lines),
        score_name="explained variance" if report.targets.is_floating_point() else "accuracy",
        score_before=1 - float(before.mean()),
        score_after=1 - float(after.mean()),
        loss=_interval(after - before),
        n_choose=len(search.choose),
        n_report=len(report),
        size=chosen.n_bytes / given.n_bytes,
        int8_score=None
        if int8 is None
        else 1 - float(losses(run_onnx(whole, report), report.targets).mean()),
        table=_table(records, chosen, ms),
    )


def _interval(change: Tensor) -> Interval:
    """Return the mean loss with its 95 % interval over sequences.

    Where no sequence changed, a bootstrap would claim certainty; then it is by the share of sequences that
    may change unseen, ``1 - 0.05 ** (1 / n)`` (the rule of three).
    """
    if bool((change == 0).all()):
        unseen = 1 - DOUBT ** (1 / len(change))
        return Interval(0.0, -unseen, unseen)
    return bootstrap_mean(change.numpy())


def _int8(search: CandidateSearch, chosen: CandidateRecord) -> Quantised | None:
    """Write the file that multiplies integers, where the chosen weights are int8 and it agrees."""
    whole = search.folder / INT8
    whole.unlink(missing_ok=True)  # of an earlier search in the same folder
    if chosen.candidate.form != "int8":
        return None
    made = search.make(chosen.candidate)
    assert isinstance(made, Quantised)
    try:
        export_int8(made, whole)
    except ExportError:  # a network that amplifies rounding: there is the other file
        return None
    return made


def _sizes(
    search: CandidateSearch, given: CandidateRecord, chosen: CandidateRecord, int8: int | None
) -> list[Line]:
    rows = [Line("ONNX file", given.n_bytes, chosen.n_bytes, "bytes")]
    if int8 is not None:
        rows.append(Line("ONNX file, integer products", given.n_bytes, int8, "bytes"))
    own = [(search.place(r.candidate) / MODEL).stat().st_size for r in (given, chosen)]
    rows.append(Line("safetensors file", own[0], own[1], "bytes"))
    plain = [len(torch_bytes(search.model_of(r.candidate))) for r in (given, chosen)]
    rows.append(Line("PyTorch file (float32)", plain[0], plain[1], "bytes"))
    return rows


def _counts(
    search: CandidateSearch, given: CandidateRecord, chosen: CandidateRecord, report: Split
) -> list[Line]:
    rows = [
        Line("weights", given.weights, chosen.weights),
        Line("weights that are not zero", given.nonzero, chosen.nonzero),
        Line("multiplications a sequence", given.multiplications, chosen.multiplications),
    ]
    models = [search.model_of(record.candidate) for record in (given, chosen)]
    if not models[0].core.bidirectional:
        x = report.inputs[:COUNTED]
        events = [float(event_cost(model, x).events.mean()) for model in models]
        rows.append(Line("synaptic events a sequence", events[0], events[1]))
    return rows


def _file_times(
    search: CandidateSearch,
    records: Sequence[CandidateRecord],
    int8: Path | None,
    report: Split,
    seconds: float,
) -> dict[str, float]:
    """Return each file's milliseconds for one sequence: what card, table and figure all show."""
    files = {record.candidate.name: search.place(record.candidate) / ONNX for record in records}
    return time_files(files if int8 is None else {**files, INT8: int8}, report.inputs[:1], seconds=seconds)


def _latencies(
    search: CandidateSearch,
    given: CandidateRecord,
    chosen: CandidateRecord,
    int8: Quantised | None,
    report: Split,
    ms: Mapping[str, float],
    seconds: float,
) -> list[Line]:
    pair = {"given": search.model_of(given.candidate), "chosen": search.model_of(chosen.candidate)}
    one, many = report.inputs[:1], report.inputs[torch.arange(TIMED) % len(report)]
    files = {"given": search.place(given.candidate) / ONNX, "chosen": search.place(chosen.candidate) / ONNX}
    if int8 is not None:
        files["int8"] = search.folder / INT8
    rows = _pair_rows("one step of a stream", pair, one, "stream", seconds)
    first = {"given": ms[given.candidate.name], "chosen": ms[chosen.candidate.name], "int8": ms.get(INT8)}
    for label, inputs, found in (
        ("one sequence", one, first),
        (f"{TIMED} sequences", many, time_files(files, many, seconds=seconds)),
    ):
        rows.append(Line(f"{label}, onnxruntime", found["given"], found["chosen"], "ms"))
        rows += _pair_rows(label, pair, inputs, "batch", seconds)
        if int8 is not None:
            rows.append(Line(f"{label}, integer products", found["given"], found["int8"], "ms"))
    return rows


def _pair_rows(
    label: str, pair: Mapping[str, RecurrentModel], inputs: Tensor, mode: str, seconds: float
) -> list[Line]:
    """Return what has no file: PyTorch, and steps of a stream, in float32."""
    runtimes = RUNTIMES if mode == "stream" else ("eager",)
    frame = measure_latency(pair, inputs, runtimes=runtimes, reference="given", seconds=seconds)
    own = frame[frame["mode"] == mode].set_index(["model", "runtime"])["ms"].to_dict()
    shown = {"onnx": "onnxruntime, float32", "eager": "PyTorch"}
    return [
        Line(f"{label}, {shown[runtime]}", own["given", runtime], own["chosen", runtime], "ms")
        for runtime in reversed(runtimes)
        if ("given", runtime) in own
    ]


def _table(
    records: Sequence[CandidateRecord], chosen: CandidateRecord, ms: Mapping[str, float]
) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "name": record.candidate.name,
            "form": record.candidate.form,
            "bytes": record.n_bytes,
            "size": record.n_bytes / records[0].n_bytes,
            "weights": record.weights,
            "nonzero": record.nonzero,
            "multiplications": record.multiplications,
            "ms": ms[record.candidate.name],
            "score": record.score,
            "chosen": record.candidate == chosen.candidate,
        }
        for record in records
    ]
    return pd.DataFrame(rows)


def files_of(folder: Path) -> list[str]:
    """Return the names of the model files in a results folder."""
    names = (ONNX, INT8, MODEL, "model.pt")
    return [name for name in names if (folder / name).is_file()]


__all__ = ["INT8", "Line", "Result", "files_of", "measure", "torch_bytes"]
