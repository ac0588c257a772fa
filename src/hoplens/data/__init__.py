"""Sequence data sets: speech, sensors, images, language, music, control; and a connectome."""

from hoplens.data.building import from_sequences
from hoplens.data.chorales import chorales
from hoplens.data.closed_loop import ClosedLoop, closed_loop_return, step_by_step
from hoplens.data.connectome import celegans
from hoplens.data.control import cartpole, pendulum
from hoplens.data.digits import digits
from hoplens.data.environments import from_environment
from hoplens.data.folksongs import folksongs
from hoplens.data.narma import narma
from hoplens.data.registry import describe, load, names
from hoplens.data.sets import SequenceData, Split
from hoplens.data.text import text
from hoplens.data.ucr import appliances, motions, power, read_ts, vowels

__all__ = [
    "ClosedLoop",
    "SequenceData",
    "Split",
    "appliances",
    "cartpole",
    "celegans",
    "chorales",
    "closed_loop_return",
    "describe",
    "digits",
    "folksongs",
    "from_environment",
    "from_sequences",
    "load",
    "motions",
    "names",
    "narma",
    "pendulum",
    "power",
    "read_ts",
    "step_by_step",
    "text",
    "vowels",
]
