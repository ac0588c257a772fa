"""Reports: one self-contained HTML page that states what a network routes, or what a study found."""

from hoplens.reports.one_call import report
from hoplens.reports.page import (
    render_network_report,
    render_study_report,
    write_network_report,
    write_study_report,
)

__all__ = [
    "render_network_report",
    "render_study_report",
    "report",
    "write_network_report",
    "write_study_report",
]
