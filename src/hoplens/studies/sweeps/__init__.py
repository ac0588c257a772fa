"""Studies of any size: planned from a file, run anywhere, kept network by network, resumed."""

from hoplens.studies.sweeps.config import load_study, make_study, parse_study
from hoplens.studies.sweeps.counter import Progress
from hoplens.studies.sweeps.running import run_sweep
from hoplens.studies.sweeps.store import RunStore, open_store

__all__ = ["Progress", "RunStore", "load_study", "make_study", "open_store", "parse_study", "run_sweep"]
