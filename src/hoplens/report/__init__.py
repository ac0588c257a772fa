"""Reports: one self-contained HTML page that states what a study found."""

from hoplens.report.page import StudyLike, render_study_report, write_study_report

__all__ = ["StudyLike", "render_study_report", "write_study_report"]
