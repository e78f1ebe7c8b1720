"""Folders that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path


def take_place(new: Path, place: Path, aside: Path) -> None:
    """Renames a finished folder to its place. What was there goes aside first, and comes back if that fails."""
    if place.exists():
        place.rename(aside)
    try:
        new.rename(place)
    except BaseException:  # an interrupt too must not lose what was there
        if aside.exists():
            aside.rename(place)
        raise
