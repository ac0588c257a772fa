"""Sequence data sets: splits, masks, where they come from. And the worm's wiring (`hoplens.connectome`)."""

from hoplens.data.sets import SequenceData, Split

__all__ = ["SequenceData", "Split"]
