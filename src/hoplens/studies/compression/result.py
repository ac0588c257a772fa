"""What came of a search: measured once more on held-back sequences, beside the model as given."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hoplens.compress.tuning import losses
from hoplens.data.sets import Split
from hoplens.export import event_cost
from hoplens.export.exporters import EXPORTERS
from hoplens.export.latency import RUNTIMES, measure_latency, time_runs
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.studies.compression.search import (
    MODEL,
    CandidateRecord,
    CandidateSearch,
    Choice,
    exporters,
    file_name,
    open_file,
)
from hoplens.studies.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd

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
    """All measured figures of a finished search."""

    lines: tuple[Line, ...]  # sizes, counts, latencies and events, before and after
    score_name: str  # "accuracy", or "explained variance" (1 minus the error's share)
    score_before: float  # on ``n_report`` sequences that neither training nor the choice has seen
    score_after: float
    loss: Interval  # their difference, with its 95 % bootstrap interval over sequences
    n_choose: int
    n_report: int
    size: float  # of the chosen file, as a share of the ONNX file of the model as given
    extra_scores: dict[str, float]  # of the chosen model's other files, on the same sequences, by format
    table: pd.DataFrame  # one row a candidate and format, see `_table`

    def keeps(self, target_size: float, max_loss: float) -> tuple[bool, bool]:
        """Return whether size and loss, on sequences that the choice has not seen, are within the limits."""
        return self.size <= target_size, self.loss.mean <= max_loss


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
    """Measure the chosen candidate and the model as given on the sequences held back."""
    given, chosen = records[0], choice.record
    before, after = (losses(search.run_on(one, report), report.targets) for one in (given, chosen))
    others = [r for r in records if r.candidate == chosen.candidate and r.format != chosen.format]
    ms = _times(search, records, report.inputs[:1], seconds)
    return Result(
        lines=(
            *_sizes(search, given, [chosen, *others]),
            *_counts(search, given, chosen, report),
            *_latencies(search, given, [chosen, *others], report, ms, seconds),
        ),
        score_name="explained variance" if report.targets.is_floating_point() else "accuracy",
        score_before=1 - float(before.mean()),
        score_after=1 - float(after.mean()),
        loss=_interval(after - before),
        n_choose=len(search.choose),
        n_report=len(report),
        size=chosen.n_bytes / given.n_bytes,
        extra_scores={
            one.format: 1 - float(losses(search.run_on(one, report), report.targets).mean()) for one in others
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


def _label(record: CandidateRecord) -> str:
    return EXPORTERS.get(record.format).label


def _sizes(
    search: CandidateSearch, given: CandidateRecord, files: Sequence[CandidateRecord]
) -> Iterator[Line]:
    for one in files:
        yield Line(f"{_label(one)} file", given.n_bytes, one.n_bytes, "bytes")
    pair = given.candidate, files[0].candidate
    saved = [(search.place(candidate) / MODEL).stat().st_size for candidate in pair]
    yield Line("safetensors file", saved[0], saved[1], "bytes")
    plain = [len(torch_bytes(search.model_of(candidate))) for candidate in pair]
    yield Line("PyTorch file (float32)", plain[0], plain[1], "bytes")


def _counts(
    search: CandidateSearch, given: CandidateRecord, chosen: CandidateRecord, report: Split
) -> Iterator[Line]:
    yield from (
        Line("weights", given.weights, chosen.weights),
        Line("weights that are not zero", given.nonzero, chosen.nonzero),
        Line("multiplications a sequence", given.multiplications, chosen.multiplications),
    )
    models = [search.model_of(record.candidate) for record in (given, chosen)]
    if not models[0].core.bidirectional:
        x = report.inputs[:COUNTED]
        events = [float(event_cost(model, x).events.mean()) for model in models]
        yield Line("synaptic events a sequence", events[0], events[1])


def _times(
    search: CandidateSearch, records: Sequence[CandidateRecord], inputs: Tensor, seconds: float
) -> dict[str, float]:
    """Return each file's milliseconds by the name of its record: what card, table and figure all show."""
    runs = {}
    for one in records:
        opened = open_file(search.path(one), EXPORTERS.get(one.format))
        runs[one.name] = partial(opened, inputs)
    return time_runs(runs, seconds)


def _latencies(
    search: CandidateSearch,
    given: CandidateRecord,
    files: Sequence[CandidateRecord],
    report: Split,
    ms: Mapping[str, float],
    seconds: float,
) -> Iterator[Line]:
    pair = {"given": search.model_of(given.candidate), "chosen": search.model_of(files[0].candidate)}
    one, many = report.inputs[:1], report.inputs[torch.arange(TIMED) % len(report)]
    yield from _pair_rows("one step of a stream", pair, one, "stream", seconds)
    together = list(dict.fromkeys([given, *files]))
    for label, inputs, times in (
        ("one sequence", one, ms),
        (f"{TIMED} sequences", many, _times(search, together, many, seconds)),
    ):
        for file in files:
            yield Line(f"{label}, {_label(file)} file", times[given.name], times[file.name], "ms")
        yield from _pair_rows(label, pair, inputs, "batch", seconds)


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
    """Return one row a file: size as a share of the given model's, ms of one sequence, score."""
    import pandas as pd

    rows = [
        {
            "name": record.name,
            "form": record.candidate.form,
            "format": record.format,
            "bytes": record.n_bytes,
            "size": record.n_bytes / records[0].n_bytes,
            "weights": record.weights,
            "nonzero": record.nonzero,
            "multiplications": record.multiplications,
            "ms": ms[record.name],
            "score": record.score,
            "chosen": record == chosen,
        }
        for record in records
    ]
    return pd.DataFrame(rows)


def files_of(folder: Path) -> list[str]:
    """Return the names of the model files in a results folder."""
    names = (*map(file_name, exporters()), MODEL, "model.pt")
    return [name for name in names if (folder / name).is_file()]
