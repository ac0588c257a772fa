"""What `hoplens compress` tries: windows, pruning and few-bit weights, and all their combinations."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from hoplens.compress.pruning import prune
from hoplens.compress.quantisation import Quantised, quantise
from hoplens.compress.tuning import fine_tune
from hoplens.compress.window import effective_window, truncate
from hoplens.data.sets import Split
from hoplens.models.recurrent_model import RecurrentModel, describe_model, last_steps
from hoplens.studies.compression.data import lengths_of
from hoplens.version import __version__

FORMS = ("float32", "int8", "int4")
QUICK_FORMS = FORMS[:2]
QUICK_STEPS = 3  # a quick search fine-tunes for so many times fewer steps
UNITS = (0.25, 0.5, 0.75)  # shares of units cut out
WEIGHTS = (0.5, 0.8, 0.9)  # shares of single weights set to zero
BLOCKS = ("in", "rec", "out")
ROUNDS = 3  # of pruning, each with its fine-tuning
CALIBRATION = 1024  # sequences, at most, that scales of activations are set on
WINDOW_SEQUENCES = 256  # on which a window is looked for
WINDOW_TOLERANCE = 0.1  # of the outputs' standard deviation


@dataclass(frozen=True)
class Candidate:
    """One way to compress.

    ``window``: last steps that are run. ``structure``: what is pruned. ``amount``: which share of it.
    ``form``: of the weights.
    """

    window: int | None = None
    structure: str = "none"
    amount: float = 0.0
    form: str = "float32"

    @property
    def name(self) -> str:
        """What tables call it."""
        parts = [] if self.window is None else [f"last {self.window} steps"]
        if self.structure != "none":
            parts.append(f"{self.amount:.0%} of {self.structure}s removed")
        if self.form != "float32":
            parts.append(f"{self.form} weights")
        return ", ".join(parts) or "as given"

    @property
    def stage(self) -> Candidate:
        """The same without quantising: what is quantised."""
        return replace(self, form="float32")


@dataclass(frozen=True)
class TuningSettings:
    """How candidates are trained.

    ``steps``: of fine-tuning, after all of a candidate's changes but quantising, and again through the
    rounding.
    """

    steps: int = 300
    lr: float = 1e-3
    batch: int = 64
    seed: int = 0


def all_candidates(windows: list[int | None], *, quick: bool = False) -> Iterator[Candidate]:
    """Yield every combination; each quantised candidate comes after the one that it quantises.

    With ``quick``, at most ten: the middle amount of each structure, without a window; windows by themselves;
    weights as they are or in 8 bits.
    """
    forms = QUICK_FORMS if quick else FORMS
    for window in windows:
        yield from (Candidate(window, form=form) for form in forms)
        if quick and window is not None:
            continue
        for structure, all_amounts in (("unit", UNITS), ("weight", WEIGHTS)):
            amounts = all_amounts[len(all_amounts) // 2 :][:1] if quick else all_amounts
            yield from (Candidate(window, structure, a, form) for a in amounts for form in forms)


def windows_to_try(model: RecurrentModel, data: Split) -> list[int | None]:
    """Return no window, half of the steps, and the window within which the outputs hardly change.

    Only for a read-out at the end of a network that runs one way.
    """
    steps = data.length
    if model.info.every_step or model.core.bidirectional or steps < 2 or model.info.window is not None:
        return [None]
    few = slice(0, WINDOW_SEQUENCES)
    lengths = lengths_of(data)
    some = None if lengths is None else lengths[few]
    with torch.no_grad():
        spread = float(model(data.inputs[few], some).std())
    tolerance = max(WINDOW_TOLERANCE * spread, 1e-9)
    found = effective_window(model, data.inputs[few], tolerance, lengths=some)
    short = {-(-steps // 2)} | ({found.window} if found.window else set())
    return [None, *sorted(short, reverse=True)]


def make_stage(
    model: RecurrentModel, candidate: Candidate, data: Split, settings: TuningSettings
) -> RecurrentModel:
    """Return the model truncated and pruned as planned, fine-tuned; the given one stays as it was."""
    if candidate.window is not None:
        model = truncate(model, candidate.window)
    lengths = lengths_of(data)

    def tune(own: RecurrentModel, steps: int) -> None:
        parameters = [p for p in own.parameters() if p.requires_grad]
        options = {"steps": steps, "batch": settings.batch, "seed": settings.seed}
        fine_tune(own, parameters, data.inputs, data.targets, lengths, lr=settings.lr, **options)

    if candidate.structure == "none":
        if candidate.window is not None and settings.steps:
            tune(model, settings.steps)
        return model
    each = -(-settings.steps // ROUNDS)
    with warnings.catch_warnings():  # that nothing changed, in very small networks: the table shows it
        warnings.simplefilter("ignore", UserWarning)
        return prune(
            model,
            candidate.amount,
            structure=candidate.structure,
            blocks=BLOCKS if candidate.structure == "weight" else ("rec",),
            inputs=_full(data),
            rounds=ROUNDS,
            fine_tune=(lambda own: tune(own, each)) if each else None,
            seed=settings.seed,
        ).model


def quantise_stage(
    stage: RecurrentModel, candidate: Candidate, data: Split, settings: TuningSettings
) -> Quantised:
    """Return the stage with few-bit weights, calibrated and fine-tuned through the rounding."""
    few = torch.arange(0, len(data), max(1, -(-len(data) // CALIBRATION)))
    lengths = lengths_of(data)
    return quantise(
        stage,
        candidate.form,
        inputs=data.inputs[few],
        lengths=None if lengths is None else lengths[few],
        targets=data.targets[few],
        steps=settings.steps,
        lr=settings.lr,
        batch=settings.batch,
        seed=settings.seed,
    )


def _full(data: Split) -> Tensor:
    """Return sequences without padding to score by: all, or the last steps of the longer half."""
    lengths = lengths_of(data)
    if lengths is None:
        return data.inputs
    middle = int(lengths.median())
    long = lengths >= middle
    return last_steps(data.inputs[long], middle, lengths[long])[0]


def digest(*parts: object) -> str:
    """Return a hash of candidates, settings, models and data, by content."""
    mill = hashlib.sha256()
    for part in parts:
        if isinstance(part, RecurrentModel):
            mill.update(json.dumps(describe_model(part), sort_keys=True).encode())
            tensors = list(part.state_dict().values())
        elif isinstance(part, Split):
            tensors = [part.inputs, part.targets, part.lengths]
        else:
            content = asdict(part) if isinstance(part, Candidate | TuningSettings) else part
            mill.update(json.dumps(content, sort_keys=True).encode())
            continue
        for tensor in tensors:
            mill.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            mill.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return mill.hexdigest()[:16]


def search_key(
    model: RecurrentModel, train: Split, choose: Split, report: Split, settings: TuningSettings
) -> str:
    """Return what identifies a search: another version, model, data or setting gives another key."""
    return digest(__version__, model, train, choose, report, settings)
