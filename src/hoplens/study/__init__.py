"""The resolvent-RNN study: every method on every task, chosen, compared and set beside the paper."""

from hoplens.study.plan import full_plan, quick_plan
from hoplens.study.results import StudyResults
from hoplens.study.runner import run_study

__all__ = ["StudyResults", "full_plan", "quick_plan", "run_study"]
