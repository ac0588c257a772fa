"""Make every candidate, measure its file, keep it by content, and choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.compress.tuning import losses
from hoplens.data.sets import Split
from hoplens.errors import ExportError, FileError, NonFiniteError, UnsupportedModelError
from hoplens.export.exporters import EXPORTERS, Exporter
from hoplens.files import make_folder, write_atomically
from hoplens.models.readers.copies import as_model
from hoplens.models.readers.saved import load_model, save_model
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.studies.compression.candidates import (
    Candidate,
    TuningSettings,
    all_candidates,
    digest,
    make_stage,
    quantise_stage,
    search_key,
    windows_to_try,
)

FORMAT = 2  # of the records
BATCH = 256  # sequences run at once, to bound memory
GIVEN = "onnx"  # the format of the model as given
HOPELESS = 0.05  # loss of the score
MARK = "compress.json"
STEM, MODEL, RECORDS = "model", "model.safetensors", "records.json"


@dataclass(frozen=True)
class CandidateRecord:
    """What was measured of one candidate in one format."""

    candidate: Candidate
    format: str  # name of its exporter
    n_bytes: int  # of its file
    weights: int  # numbers in its matrices, and those that are not zero
    nonzero: int
    multiplications: int  # of one inference on hardware that skips no zeros: steps run times weights
    score: float  # of the file, on the sequences that the choice is made on
    doubt: float  # standard error of its difference from the score of the model as given, by sequence

    @property
    def name(self) -> str:
        """What tables call it."""
        label = EXPORTERS.get(self.format).label
        return self.candidate.name + ("" if self.format == GIVEN else f", as {label}")


def exporters() -> list[Exporter]:
    """Return all formats, ONNX first: every candidate has that file, and as given it is what others beat."""
    return [EXPORTERS.get(name) for name in EXPORTERS.names()]


def file_name(exporter: Exporter) -> str:
    """Return what the file of a format is called in the folder of a candidate and in that of the results."""
    first = next(other for other in exporters() if other.suffix == exporter.suffix)
    return f"{STEM}{'' if first.name == exporter.name else f'-{exporter.name}'}{exporter.suffix}"


def open_file(path: Path, exporter: Exporter) -> Callable[[Tensor], Tensor]:
    """Return what runs an exported file, opened once."""
    try:
        return exporter.open(path)
    except OSError as error:
        raise FileError(f"cannot read {path} ({error.strerror or type(error).__name__})") from None


def run_file(path: Path, split: Split, exporter: Exporter) -> Tensor:
    """Return the outputs of an exported file, float32 (N, O), or (N, L, O) with zeros where padded.

    Sequences of one length go together, without their padding.
    """
    run = open_file(path, exporter)
    outputs: Tensor | None = None
    for length in split.lengths.unique().tolist():
        chosen = (split.lengths == length).nonzero()[:, 0]
        for part in chosen.split(BATCH):
            with torch.no_grad():
                shown = run(split.inputs[part, :length]).float()
            if outputs is None:
                steps = (split.length,) if shown.dim() == 3 else ()
                outputs = torch.zeros(len(split), *steps, shown.shape[-1])
            if shown.dim() == 3:
                outputs[part, :length] = shown
            else:
                outputs[part] = shown
    assert outputs is not None  # a split has sequences
    return outputs


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and why.

    ``met``: whether some candidate is within both limits, on the sequences that the choice is made on.
    ``why``: the rule, or how near it came.
    """

    record: CandidateRecord
    met: bool
    why: str


class CandidateSearch:
    """Candidates of one model on one data set, kept in a folder.

    ``train``: to fine-tune on. ``choose``, ``report``: to choose on, and to report on; both unseen by any
    training. ``folder``: made if missing; one that holds something else is refused. ``quick``: try one
    amount of each kind of pruning instead of three.
    """

    def __init__(
        self,
        model: RecurrentModel,
        train: Split,
        choose: Split,
        report: Split,
        settings: TuningSettings,
        folder: Path,
        *,
        quick: bool = False,
    ) -> None:
        self.model, self.train, self.choose, self.settings = model, train, choose, settings
        self.folder = make_folder(folder, "results folder")
        self._claim()
        self.kept = make_folder(folder / "candidates", "results folder")
        self.key = search_key(model, train, choose, report, settings)
        self.reference: Tensor | None = None  # losses of the model as given
        as_model(model, needs="weight_hh")  # refuses what can be neither pruned nor quantised
        candidates = all_candidates(windows_to_try(model, train), quick=quick)
        # an LSTM with a projection shows that, not its units: none can be cut out
        whole = getattr(model.core, "proj_size", 0) == 0
        self.candidates = [candidate for candidate in candidates if whole or candidate.structure != "unit"]

    def _claim(self) -> None:
        mark = self.folder / MARK
        if mark.is_file():
            return
        if any(self.folder.iterdir()):
            raise FileError(
                f"{self.folder} holds other files and no {MARK} of `hoplens compress`; choose another --out"
            )
        write_atomically(mark, json.dumps({"format": FORMAT}).encode())

    def place(self, candidate: Candidate) -> Path:
        """Return the folder of a candidate."""
        return self.kept / digest(FORMAT, self.key, candidate, EXPORTERS.names())

    def run(
        self, *, give_up: float = HOPELESS, progress: Callable[[Candidate], None] | None = None
    ) -> list[CandidateRecord]:
        """Make all candidates that are not there yet; return the records of all, in order.

        ``give_up``: a window that loses more than this by itself is not combined with anything.
        ``progress``: called with each candidate when it is done or left out.
        """
        records: list[CandidateRecord] = []
        hopeless: set[int | None] = set()
        for candidate in self.candidates:
            if candidate.window not in hopeless:
                files = self._records(candidate)
                records += files
                alone = candidate == Candidate(candidate.window) and candidate.window is not None
                if alone and files and records[0].score - files[0].score > give_up:
                    hopeless.add(candidate.window)
            if progress is not None:
                progress(candidate)
        return records

    def _records(self, candidate: Candidate) -> list[CandidateRecord]:
        """Return a candidate's records; none of one that diverged or amplifies rounding: it cannot ship."""
        try:
            return self.load(candidate) or self._make(candidate)
        except (ExportError, NonFiniteError):
            if candidate == Candidate():
                raise
            return []

    def load(self, candidate: Candidate) -> list[CandidateRecord]:
        """Return the records of a finished candidate; none where missing or damaged: it is made anew then."""
        place = self.place(candidate)
        try:
            kept = json.loads((place / RECORDS).read_text())
            records = [CandidateRecord(**{**one, "candidate": Candidate(**one["candidate"])}) for one in kept]
            fits = all(self.path(one).stat().st_size == one.n_bytes for one in records)
        except (OSError, ValueError, TypeError, KeyError):
            return []
        fits &= all(one.candidate == candidate for one in records) and (place / MODEL).is_file()
        return records if fits else []

    def path(self, record: CandidateRecord) -> Path:
        """Return the file that was measured."""
        return self.place(record.candidate) / file_name(EXPORTERS.get(record.format))

    def run_on(self, record: CandidateRecord, split: Split) -> Tensor:
        """Return what the file gives for sequences."""
        return run_file(self.path(record), split, EXPORTERS.get(record.format))

    def model_of(self, candidate: Candidate) -> RecurrentModel:
        """Return the model of a finished candidate."""
        return load_model(self.place(candidate) / MODEL).eval()

    def _build(self, candidate: Candidate) -> RecurrentModel | Quantised:
        """Return a candidate; its stage before quantising comes from its folder where it is finished."""
        if candidate.form == "float32":
            return make_stage(self.model, candidate, self.train, self.settings)
        stage = self.model_of(candidate.stage) if self.load(candidate.stage) else self._build(candidate.stage)
        assert isinstance(stage, RecurrentModel)
        return quantise_stage(stage, candidate, self.train, self.settings)

    def _make(self, candidate: Candidate) -> list[CandidateRecord]:
        """Build a candidate once, write it in every format that takes it, and measure the files."""
        made = self._build(candidate)
        place = make_folder(self.place(candidate), "results folder")
        save_model(made, place / MODEL)
        plain = made.model if isinstance(made, Quantised) else made
        matrices = [value for name, value in plain.state_dict().items() if "weight" in name]
        count, nonzero = sum(m.numel() for m in matrices), sum(int((m != 0).sum()) for m in matrices)
        records = []
        for exporter in exporters():
            if not exporter.takes(made):
                continue
            path = place / file_name(exporter)
            try:
                exporter.write(made, path)
            except (ExportError, UnsupportedModelError):
                if exporter.name == GIVEN:
                    raise
                continue  # a format that cannot hold this network, or not as exactly as it promises
            lost = losses(run_file(path, self.choose, exporter), self.choose.targets)
            if self.reference is None:
                if candidate == Candidate():
                    self.reference = lost
                else:
                    given = self.load(Candidate())[0]
                    self.reference = losses(self.run_on(given, self.choose), self.choose.targets)
            records.append(
                CandidateRecord(
                    candidate,
                    exporter.name,
                    path.stat().st_size,
                    count,
                    nonzero,
                    multiplications(plain, self.train.length),
                    1 - float(lost.mean()),
                    float((lost - self.reference).std() / len(lost) ** 0.5),
                )
            )
        # the records come last and say that the candidate is whole
        write_atomically(place / RECORDS, json.dumps([asdict(one) for one in records], indent=1).encode())
        return records


def multiplications(model: RecurrentModel, length: int) -> int:
    """Return the multiplications by weights of one inference of ``length`` steps."""
    window = None if model.info.every_step else model.info.window
    steps = length if window is None else min(window, length)
    cells = sum(value.numel() for name, value in model.core.state_dict().items() if "weight" in name)
    reads = steps if model.info.every_step else 1
    return int(steps * cells + reads * model.readout.weight.numel())


def choose(records: Sequence[CandidateRecord], target_size: float, max_loss: float) -> Choice:
    """Choose by size and score; the first record is the model as given.

    Among the candidates within both limits the one of fewest multiplications, then fewest bytes, then best
    score; if some are within the loss by a standard error, only among these, since a choice by a limit
    flatters the chosen. If there is none, the one that exceeds its limits by the least share.
    """
    given = records[0]

    def size(record: CandidateRecord) -> float:
        return record.n_bytes / given.n_bytes

    def loss(record: CandidateRecord) -> float:
        return given.score - record.score

    def cost(record: CandidateRecord) -> tuple[Any, ...]:
        return record.multiplications, record.n_bytes, -record.score, record.name

    small = [r for r in records if size(r) <= target_size]
    good = [r for r in records if loss(r) <= max_loss]
    both = [r for r in small if r in good]
    if both:
        safe = [r for r in both if loss(r) + r.doubt <= max_loss]
        why = f"fewest multiplications of the {len(safe or both)} within both limits"
        return Choice(min(safe or both, key=cost), True, why + (" by a standard error" if safe else ""))

    def excess(record: CandidateRecord) -> tuple[Any, ...]:
        over = max(0.0, size(record) / target_size - 1) + max(0.0, loss(record) - max_loss) / max(
            max_loss, 0.01
        )
        return over, *cost(record)

    parts = []
    if small:
        nearest = max(small, key=lambda r: (r.score, -r.n_bytes))
        parts.append(f"the best of at most {target_size:.0%} loses {loss(nearest):.4f} ({nearest.name})")
    else:
        least = min(records, key=lambda r: (r.n_bytes, -r.score))
        parts.append(f"the smallest has {size(least):.1%} of the bytes ({least.name})")
    nearest = min(good, key=lambda r: (r.n_bytes, -r.score)) if good else given
    parts.append(f"the smallest that loses at most {max_loss:g} has {size(nearest):.1%} ({nearest.name})")
    return Choice(min(records, key=excess), False, "no candidate is within both limits: " + "; ".join(parts))
