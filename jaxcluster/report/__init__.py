"""One self-contained HTML file that tells what a run did."""

from jaxcluster.report.page import write_report

__all__ = ["write_report"]
