"""Helpers for the tests of readers: writing files, and reading error messages."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from jaxcluster.datasets import DataError, load


def write(name: str, text: str) -> str:
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return name


def idx_bytes(array: np.ndarray) -> bytes:
    """The array as an idx file."""
    codes = {"u1": 0x08, "i2": 0x0B, "f4": 0x0D}
    header = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def complaint(spec, **options) -> str:
    """The message of the DataError that loading raises: one line, to be shown as it is."""
    with pytest.raises(DataError) as error:
        load(spec, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
