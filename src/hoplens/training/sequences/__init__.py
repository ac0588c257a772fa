"""Networks of recurrent cells trained on data sets of sequences, many as one batch."""

from hoplens.penalties.trajectory import TrajectoryPenalty, TrajectorySpec
from hoplens.training.sequences.ensemble import SequenceEnsemble
from hoplens.training.sequences.training import (
    SequenceResult,
    SequenceSettings,
    train_sequence_networks,
    train_sequences,
)

__all__ = [
    "SequenceEnsemble",
    "SequenceResult",
    "SequenceSettings",
    "TrajectoryPenalty",
    "TrajectorySpec",
    "train_sequence_networks",
    "train_sequences",
]
