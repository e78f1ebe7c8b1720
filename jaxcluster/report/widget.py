"""A report as a widget of a notebook: samples that are selected on the page are known in Python, and the reverse."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any


def explorer(title: str, html: str, n_samples: int) -> Any:
    """Make the widget of a report.

    Args:
        title: of the page.
        html: the page.
        n_samples: number of samples of the fit.

    Raises:
        ImportError: anywidget is not installed.
    """
    return _class()(title=title, html=html, n_samples=n_samples)


@cache
def _class() -> type:
    """The class of the widget; anywidget is imported here, and only if a widget is asked for."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError("an explorer needs anywidget: pip install 'jaxcluster[notebook]'.") from error

    class Explorer(anywidget.AnyWidget):
        """Report in a notebook, with its selection.

        Attributes:
            selection: numbers of the samples that are selected, from 0; to set it selects them on the page. A page
                holds at most 10,000 samples, drawn at random; others cannot be shown on it.
        """

        _esm = resources.files("jaxcluster.report").joinpath("widget.js").read_text(encoding="utf-8")
        title = traitlets.Unicode().tag(sync=True)
        html = traitlets.Unicode().tag(sync=True)
        n_samples = traitlets.Int()
        selection = traitlets.List(traitlets.Int()).tag(sync=True)

        @traitlets.validate("selection")
        def _in_range(self, proposal: Any) -> list[int]:
            strangers = [number for number in proposal["value"] if not 0 <= number < self.n_samples]
            if strangers:
                last = self.n_samples - 1
                raise traitlets.TraitError(f"selection has {strangers[0]}: numbers of samples are from 0 to {last:,}.")
            return proposal["value"]

        def __repr__(self) -> str:
            return f"<Explorer {self.title!r}: {len(self.selection):,} of {self.n_samples:,} samples selected>"

    return Explorer
