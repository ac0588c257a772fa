"""Studies that compare methods: run from a file, chosen, compared with intervals, held to their aims."""

from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.comparison.running import load_results, package_study, run_study, study_text

__all__ = ["StudyResults", "load_results", "package_study", "run_study", "study_text"]
