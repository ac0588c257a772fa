"""The resolvent-RNN study: every method on every task, chosen, compared and set beside the paper."""

from hoplens.studies.paper.plan import full_plan, quick_plan
from hoplens.studies.paper.results import StudyResults
from hoplens.studies.paper.runner import run_study

__all__ = ["StudyResults", "full_plan", "quick_plan", "run_study"]
