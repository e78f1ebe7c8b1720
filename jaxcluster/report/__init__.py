"""One self-contained HTML file that tells what a run did."""

from jaxcluster.report.page import write_report
from jaxcluster.report.run import Components

__all__ = ["Components", "write_report"]
