"""Studies of any size: planned from a file, run anywhere, kept network by network, resumed."""

from hoplens.studies.sweeps.config import load_study, make_study, parse_study
from hoplens.studies.sweeps.plan import Member, Plan
from hoplens.studies.sweeps.running import Progress, run_sweep
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.store import RunStore, open_store
from hoplens.studies.sweeps.work import Outcome, Setting, Shard

__all__ = [
    "Member",
    "Outcome",
    "Plan",
    "Progress",
    "RunStore",
    "Setting",
    "Shard",
    "TaskSetting",
    "load_study",
    "make_study",
    "open_store",
    "parse_study",
    "run_sweep",
]
