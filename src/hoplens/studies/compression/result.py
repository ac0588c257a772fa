"""What came of a search: measured once more on held-back sequences, beside the model as given."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.data.sets import Split
from hoplens.errors import ExportError
from hoplens.export import event_cost
from hoplens.export.exporters import EXPORTERS
from hoplens.export.latency import RUNTIMES, measure_latency, time_files
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.studies.compression.files import losses, run_file
from hoplens.studies.compression.search import MODEL, ONNX, CandidateRecord, CandidateSearch, Choice
from hoplens.studies.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

STEM = "model"
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

    ``lines``: sizes, counts, latencies and events, before and after. ``score_name``: "accuracy", or
    "explained variance" (1 minus the error's share). ``score_before``, ``score_after``: on ``n_report``
    sequences that neither training nor the choice has seen. ``loss``: their difference, with its 95 %
    bootstrap interval over sequences. ``size``: of the chosen ONNX file, as a share of that of the model as
    given. ``extra_scores``: of the chosen model in further formats, on the same sequences, by the name of
    the format. ``table``: all candidates: name, form, bytes, size, weights, nonzero, multiplications, ms
    (one sequence in onnxruntime: the candidate's own file, all files taking turns), score (where the choice
    was made), chosen.
    """

    lines: tuple[Line, ...]
    score_name: str
    score_before: float
    score_after: float
    loss: Interval
    n_choose: int
    n_report: int
    size: float
    extra_scores: dict[str, float]
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

    ``records``: of ``search``; the first is the model as given. ``seconds``: how long each comparison of
    latencies takes.
    """
    given, chosen = records[0], choice.record
    before, after = (
        losses(run_file(search.place(r.candidate) / ONNX, report), report.targets) for r in (given, chosen)
    )
    extra = _extra_files(search, chosen)
    lines = _sizes(search, given, chosen, extra)
    lines += _counts(search, given, chosen, report)
    ms = _file_times(search, records, extra, report, seconds)
    lines += _latencies(search, given, chosen, extra, report, ms, seconds)
    return Result(
        lines=tuple(lines),
        score_name="explained variance" if report.targets.is_floating_point() else "accuracy",
        score_before=1 - float(before.mean()),
        score_after=1 - float(after.mean()),
        loss=_interval(after - before),
        n_choose=len(search.choose),
        n_report=len(report),
        size=chosen.n_bytes / given.n_bytes,
        extra_scores={
            name: 1 - float(losses(run_file(path, report, EXPORTERS.get(name)), report.targets).mean())
            for name, path in extra.items()
        },
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


def _extra_files(search: CandidateSearch, chosen: CandidateRecord) -> dict[str, Path]:
    """Write the chosen model in every further format that takes it; return the files by their format."""
    exporters = {name: EXPORTERS.get(name) for name in EXPORTERS.names() if name != "onnx"}
    places = {name: search.folder / f"{STEM}{exporter.suffix}" for name, exporter in exporters.items()}
    for place in places.values():
        place.unlink(missing_ok=True)  # of an earlier search in the same folder
    # making it anew trains it again: only where some format needs more than the stored weights
    made = search.make(chosen.candidate) if chosen.candidate.form != "float32" else None
    model = search.model_of(chosen.candidate) if made is None else made
    found = {}
    for name, exporter in exporters.items():
        if exporter.takes is None or not exporter.takes(model):
            continue
        try:
            exporter.write(model, places[name])
        except ExportError:  # a network that amplifies rounding: there is the other file
            continue
        found[name] = places[name]
    return found


def _sizes(
    search: CandidateSearch, given: CandidateRecord, chosen: CandidateRecord, extra: Mapping[str, Path]
) -> list[Line]:
    rows = [Line("ONNX file", given.n_bytes, chosen.n_bytes, "bytes")]
    for name, path in extra.items():
        rows.append(Line(f"{EXPORTERS.get(name).label} file", given.n_bytes, path.stat().st_size, "bytes"))
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
    extra: Mapping[str, Path],
    report: Split,
    seconds: float,
) -> dict[str, float]:
    """Return each file's milliseconds for one sequence: what card, table and figure all show."""
    files = {record.candidate.name: search.place(record.candidate) / ONNX for record in records}
    return time_files({**files, **_onnx_only(extra)}, report.inputs[:1], seconds=seconds)


def _onnx_only(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if path.suffix == ".onnx"}


def _latencies(
    search: CandidateSearch,
    given: CandidateRecord,
    chosen: CandidateRecord,
    extra: Mapping[str, Path],
    report: Split,
    ms: Mapping[str, float],
    seconds: float,
) -> list[Line]:
    pair = {"given": search.model_of(given.candidate), "chosen": search.model_of(chosen.candidate)}
    one, many = report.inputs[:1], report.inputs[torch.arange(TIMED) % len(report)]
    files = {"given": search.place(given.candidate) / ONNX, "chosen": search.place(chosen.candidate) / ONNX}
    files |= _onnx_only(extra)
    rows = _pair_rows("one step of a stream", pair, one, "stream", seconds)
    first = {"given": ms[given.candidate.name], "chosen": ms[chosen.candidate.name], **ms}
    for label, inputs, found in (
        ("one sequence", one, first),
        (f"{TIMED} sequences", many, time_files(files, many, seconds=seconds)),
    ):
        rows.append(Line(f"{label}, onnxruntime", found["given"], found["chosen"], "ms"))
        rows += _pair_rows(label, pair, inputs, "batch", seconds)
        for name in _onnx_only(extra):
            rows.append(Line(f"{label}, {EXPORTERS.get(name).label}", found["given"], found[name], "ms"))
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
    names = (ONNX, *(f"{STEM}{EXPORTERS.get(name).suffix}" for name in EXPORTERS.names()), MODEL, "model.pt")
    return [name for name in dict.fromkeys(names) if (folder / name).is_file()]
