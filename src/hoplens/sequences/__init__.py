"""Networks of recurrent cells trained on data sets of sequences, many as one batch."""

from hoplens.sequences.ensemble import SequenceEnsemble
from hoplens.sequences.training import (
    SequenceResult,
    SequenceSettings,
    train_sequence_networks,
    train_sequences,
)
from hoplens.sequences.trajectory_penalty import TrajectoryPenalty, TrajectorySpec

__all__ = [
    "SequenceEnsemble",
    "SequenceResult",
    "SequenceSettings",
    "TrajectoryPenalty",
    "TrajectorySpec",
    "train_sequence_networks",
    "train_sequences",
]
