"""Chunks of one step, so that small fits are cut, saved and stopped as long ones are."""

from __future__ import annotations

import pytest

from jaxcluster.core import chunks, loop_checkpoints


def set_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one step in a chunk, and save fits of any length."""
    monkeypatch.setattr(chunks, "SHORT_WORK", 0)
    monkeypatch.setattr(chunks, "FIRST_WORK", 1)
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(loop_checkpoints, "LONG_SECONDS", 0.0)
