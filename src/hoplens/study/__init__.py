"""The resolvent-RNN study: every method on every task, chosen, compared and set beside the paper."""

from hoplens.study.plan import StudyPlan, full_plan, quick_plan
from hoplens.study.results import StudyResults
from hoplens.study.runner import run_study

__all__ = ["StudyPlan", "StudyResults", "full_plan", "quick_plan", "run_study"]
