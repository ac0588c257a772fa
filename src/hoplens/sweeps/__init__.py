"""Studies of any size: planned from a file, run anywhere, kept network by network, resumed."""

from hoplens.sweeps.config import load_study, make_study, parse_study
from hoplens.sweeps.plan import Member, Plan
from hoplens.sweeps.running import Progress, run_sweep
from hoplens.sweeps.searching import search, trial_table
from hoplens.sweeps.settings import TaskSetting
from hoplens.sweeps.store import RunStore, open_store
from hoplens.sweeps.tensorboard import export_tensorboard
from hoplens.sweeps.work import Outcome, Setting, Shard

__all__ = [
    "Member",
    "Outcome",
    "Plan",
    "Progress",
    "RunStore",
    "Setting",
    "Shard",
    "TaskSetting",
    "export_tensorboard",
    "load_study",
    "make_study",
    "open_store",
    "parse_study",
    "run_sweep",
    "search",
    "trial_table",
]
