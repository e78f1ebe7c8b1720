"""One self-contained HTML file that tells what a run did."""

from jaxcluster.report.page import write_report
from jaxcluster.report.run import Components
from jaxcluster.report.structure import Structure

__all__ = ["Components", "Structure", "write_report"]
