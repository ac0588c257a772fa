"""Make every candidate, measure its file, keep it by content, and choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hoplens.compress.quantisation import Quantised
from hoplens.data.sets import Split
from hoplens.errors import ExportError, FileError, NonFiniteError
from hoplens.export import export_onnx
from hoplens.files import make_folder, write_atomically
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
from hoplens.studies.compression.files import losses, run_file

FORMAT = 1  # of the records
HOPELESS = 0.05  # loss of the score
MARK = "compress.json"
MODEL, ONNX, RECORD = "model.safetensors", "model.onnx", "record.json"


@dataclass(frozen=True)
class CandidateRecord:
    """What was measured of one candidate.

    ``key``: its folder under ``candidates``. ``n_bytes``: size of its ONNX file. ``weights``, ``nonzero``:
    numbers in its matrices, and those that are not zero. ``multiplications``: of one inference on hardware
    that skips no zeros: steps run times weights. ``score``: of the file, in onnxruntime, on the sequences
    that the choice is made on. ``doubt``: standard error of its difference from the score of the model as
    given, sequence by sequence.
    """

    candidate: Candidate
    key: str
    n_bytes: int
    weights: int
    nonzero: int
    multiplications: int
    score: float
    doubt: float


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
        return self.kept / digest(FORMAT, self.key, candidate)

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
                record = self._record(candidate)
                if record is not None:
                    records.append(record)
                    alone = candidate == Candidate(candidate.window)
                    if alone and candidate.window is not None and records[0].score - record.score > give_up:
                        hopeless.add(candidate.window)
            if progress is not None:
                progress(candidate)
        return records

    def _record(self, candidate: Candidate) -> CandidateRecord | None:
        """Return a candidate's record; None for one that diverged or amplifies rounding: it cannot ship."""
        try:
            return self.load(candidate) or self._make(candidate)
        except (ExportError, NonFiniteError):
            if candidate == Candidate():
                raise
            return None

    def load(self, candidate: Candidate) -> CandidateRecord | None:
        """Return the record of a finished candidate; None where it is missing or damaged: made anew then."""
        place = self.place(candidate)
        try:
            told = json.loads((place / RECORD).read_text())
            record = CandidateRecord(**{**told, "candidate": Candidate(**told["candidate"])})
            size = (place / ONNX).stat().st_size
        except (OSError, ValueError, TypeError, KeyError):
            return None
        fits = record.candidate == candidate and size == record.n_bytes and (place / MODEL).is_file()
        return record if fits else None

    def model_of(self, candidate: Candidate) -> RecurrentModel:
        """Return the model of a finished candidate."""
        return load_model(self.place(candidate) / MODEL).eval()

    def make(self, candidate: Candidate) -> RecurrentModel | Quantised:
        """Return a candidate; its stage before quantising comes from its folder where it is finished."""
        if candidate.form == "float32":
            return make_stage(self.model, candidate, self.train, self.settings)
        stage = self.model_of(candidate.stage) if self.load(candidate.stage) else self.make(candidate.stage)
        assert isinstance(stage, RecurrentModel)
        return quantise_stage(stage, candidate, self.train, self.settings)

    def _make(self, candidate: Candidate) -> CandidateRecord:
        made = self.make(candidate)
        place = make_folder(self.place(candidate), "results folder")
        save_model(made, place / MODEL)
        written = export_onnx(made, place / ONNX)
        own = made.model if isinstance(made, Quantised) else made
        matrices = [value for name, value in own.state_dict().items() if "weight" in name]
        count, nonzero = sum(m.numel() for m in matrices), sum(int((m != 0).sum()) for m in matrices)
        lost = losses(run_file(place / ONNX, self.choose), self.choose.targets)
        if self.reference is None:
            file = self.place(Candidate()) / ONNX
            self.reference = losses(run_file(file, self.choose), self.choose.targets)
        record = CandidateRecord(
            candidate,
            place.name,
            written.n_bytes,
            count,
            nonzero,
            multiplications(own, self.train.length),
            1 - float(lost.mean()),
            float((lost - self.reference).std() / len(lost) ** 0.5),
        )
        # the record comes last and says that the candidate is whole
        write_atomically(place / RECORD, json.dumps(asdict(record), indent=1).encode())
        return record


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

    ``target_size``: largest size of the ONNX file, as a share of that of the model as given. ``max_loss``:
    largest loss of the score.
    """
    given = records[0]

    def size(record: CandidateRecord) -> float:
        return record.n_bytes / given.n_bytes

    def loss(record: CandidateRecord) -> float:
        return given.score - record.score

    def cost(record: CandidateRecord) -> tuple[Any, ...]:
        return record.multiplications, record.n_bytes, -record.score, record.candidate.name

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
        parts.append(
            f"the best of at most {target_size:.0%} loses {loss(nearest):.4f} ({nearest.candidate.name})"
        )
    else:
        least = min(records, key=lambda r: (r.n_bytes, -r.score))
        parts.append(f"the smallest has {size(least):.1%} of the bytes ({least.candidate.name})")
    nearest = min(good, key=lambda r: (r.n_bytes, -r.score)) if good else given
    parts.append(
        f"the smallest that loses at most {max_loss:g} has {size(nearest):.1%} ({nearest.candidate.name})"
    )
    return Choice(min(records, key=excess), False, "no candidate is within both limits: " + "; ".join(parts))
