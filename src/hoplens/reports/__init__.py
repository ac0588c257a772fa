"""Reports: one self-contained HTML page that states what a network routes, or what a study found."""

from hoplens.reports.page import (
    render_network_report,
    render_study_report,
    report,
    write_network_report,
)

__all__ = [
    "render_network_report",
    "render_study_report",
    "report",
    "write_network_report",
]
