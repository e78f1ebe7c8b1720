"""Text of a plot: its title, and the labels drawn in its axes."""

from __future__ import annotations


def title(ax) -> str:
    return ax.get_title(loc="left")


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]
