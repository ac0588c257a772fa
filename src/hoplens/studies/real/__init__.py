"""The study on real sequences: every method on every data set, chosen on validation, reported on test."""

from hoplens.studies.real.plan import RealPlan, full_real_plan, quick_real_plan
from hoplens.studies.real.results import RealResults
from hoplens.studies.real.runner import run_real_study

__all__ = ["RealPlan", "RealResults", "full_real_plan", "quick_real_plan", "run_real_study"]
