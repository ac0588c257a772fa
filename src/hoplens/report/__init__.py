"""Reports: one self-contained HTML page that states what a network routes, or what a study found."""

from hoplens.report.page import (
    render_network_report,
    render_study_report,
    write_network_report,
    write_study_report,
)
from hoplens.report.study import StudyLike

__all__ = [
    "StudyLike",
    "render_network_report",
    "render_study_report",
    "write_network_report",
    "write_study_report",
]
