"""One self-contained HTML file that tells what a run did."""

from jaxcluster.report.context import Components
from jaxcluster.report.html import write_report
from jaxcluster.report.notebook import Report, report
from jaxcluster.report.profiles import Profile, profile
from jaxcluster.report.structure import Structure
from jaxcluster.report.training import Training

__all__ = ["Components", "Profile", "Report", "Structure", "Training", "profile", "report", "write_report"]


def __dir__() -> list[str]:
    return __all__
