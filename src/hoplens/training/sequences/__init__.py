"""Networks of recurrent cells trained on data sets of sequences, many as one batch."""

from hoplens.penalties.flow import FlowPenalty, TrajectorySpec
from hoplens.training.sequences.ensemble import SequenceEnsemble
from hoplens.training.sequences.training import (
    SequenceResult,
    SequenceSettings,
    train_sequence_networks,
    train_sequences,
)

__all__ = [
    "FlowPenalty",
    "SequenceEnsemble",
    "SequenceResult",
    "SequenceSettings",
    "TrajectorySpec",
    "train_sequence_networks",
    "train_sequences",
]
