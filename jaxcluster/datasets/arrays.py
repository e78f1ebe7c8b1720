"""Readers of array files: NumPy's npy and npz, and idx, the format of MNIST.

Nothing is unpickled: a file from a stranger must not run code.

>>> as_samples(np.zeros((2, 3, 3), np.uint8), "x")[1]
(3, 3)
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import scipy.sparse

from jaxcluster.core.sparse_input import as_csr, check_values
from jaxcluster.datasets.base import (
    DataError,
    Dataset,
    as_labels,
    check_disjoint,
    choose_columns,
    column_index,
    exclude_columns,
    is_index,
    listing,
    to_exact_dtype,
    unknown_name,
)

IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Big-endian dtypes by the third byte of an idx file."""

SPARSE_MEMBERS = {"format", "shape", "data"}
"""Arrays of every file that ``scipy.sparse.save_npz`` writes."""

GZIP_MAGIC = b"\x1f\x8b"


def read_npy(path: Path) -> np.ndarray:
    """The array of an npy file. Raises DataError for a truncated file, or one that is not npy."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        stream.seek(0)
        if not start.startswith(np.lib.format.MAGIC_PREFIX):
            seen = f"it starts with {start!r}, not with NumPy's magic bytes ({size} bytes in all)"
            raise DataError(f"{path.name} cannot be read as .npy: {seen}.")
        return _read_npy_stream(stream, size, path.name)


def _read_npy_stream(stream: Any, size: int, where: str) -> np.ndarray:
    """The array of an npy stream of ``size`` bytes. Raises DataError if bytes are missing."""
    shape, dtype = _npy_header(stream, where)
    expected, seen = math.prod(shape) * dtype.itemsize, size - stream.tell()
    # Checked before NumPy allocates: a damaged header may claim terabytes.
    if seen < expected:
        raise DataError(
            f"{where} is truncated: shape {shape} of {dtype} needs {expected} bytes of numbers, {seen} are there."
        )
    stream.seek(0)
    return _restore_bfloat16(np.lib.format.read_array(stream, allow_pickle=False), where)


def _npy_header(stream: Any, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of an npy stream, up to the first number.

    Returns:
        Shape and dtype.

    Raises:
        DataError: a damaged header, or Python objects, which are never unpickled here.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    # NumPy parses the header as a Python literal, and lets the parser's errors through.
    except (ValueError, EOFError, TypeError, SyntaxError, TokenError) as error:
        raise DataError(f"{where} cannot be read as .npy: its header is damaged or truncated.") from error
    if dtype.hasobject:
        raise DataError(
            f"{where} cannot be read as .npy: it holds Python objects, which are never unpickled here. Save a plain "
            "numeric array."
        )
    if min(shape, default=0) < 0:
        raise DataError(f"{where} cannot be read as .npy: its header is damaged: it has shape {shape}.")
    return shape, dtype


def _restore_bfloat16(array: np.ndarray, where: str) -> np.ndarray:
    """The array, with raw elements of two bytes, as which NumPy writes bfloat16, as float32."""
    if array.dtype.kind != "V" or array.dtype.names is not None:
        return array
    if array.dtype.itemsize != 2:
        raise DataError(
            f"{where} holds raw bytes (dtype {array.dtype}), as NumPy writes numbers that it does not know. Save "
            "x.astype(numpy.float32)."
        )
    import ml_dtypes

    return array.view(ml_dtypes.bfloat16).astype(np.float32)


def read_npz(path: Path, key: str | None, truth: Any = None) -> tuple[Any, np.ndarray | None]:
    """Read an npz file.

    Returns:
        The array ``key``, or the only one besides the truth, and the array that ``truth`` names, or None. A file of
        ``scipy.sparse.save_npz`` gives its matrix.

    Raises:
        DataError: a damaged archive, or a key that is unknown or missing: the keys are listed with their shapes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = _npz_shapes(path, archive)
            if key is None and shapes.keys() >= SPARSE_MEMBERS:
                return _read_sparse(path, archive, shapes), None
            names = [name for name in shapes if name != truth]
            if not shapes:
                raise DataError(f"{path.name} holds no arrays.")
            if key is None and len(names) != 1:
                raise DataError(
                    f"{path} holds {len(shapes)} arrays: {listing(_describe_shapes(shapes))}. "
                    f"Choose one: {path.name}:KEY."
                )
            key = names[0] if key is None else key
            for name in (key, *([truth] if isinstance(truth, str) and not is_index(truth) else [])):
                if name not in shapes:
                    raise unknown_name(f"{path}: array", name, shapes, _describe_shapes(shapes))
            return _read_member(path, archive, key), _read_member(path, archive, truth) if truth in shapes else None
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, struct.error) as error:
        raise DataError(
            f"{path.name} cannot be read as .npz ({path.stat().st_size} bytes): it is no zip archive, or one without "
            "its end. Is it truncated?"
        ) from error


def _npz_shapes(path: Path, archive: zipfile.ZipFile) -> dict[str, tuple[int, ...]]:
    """The shape of each array."""
    shapes = {}
    for member in archive.namelist():
        # Headers only: an archive may hold arrays that do not fit into memory.
        with _open_member(path, archive, member) as stream:
            shapes[member.removesuffix(".npy")] = _npy_header(stream, f"{path.name}: array {member!r}")[0]
    return shapes


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an archive."""
    member = name if name in archive.namelist() else f"{name}.npy"
    with _open_member(path, archive, member) as stream:
        data = stream.read()
    return _read_npy_stream(io.BytesIO(data), len(data), f"{path.name}: array {name!r}")


def _read_sparse(path: Path, archive: zipfile.ZipFile, members: Collection[str]) -> scipy.sparse.csr_array:
    """The matrix of an archive that ``scipy.sparse.save_npz`` wrote. Raises DataError for parts that make no matrix."""
    parts = {name: _read_member(path, archive, name) for name in members}
    kind = parts["format"].tobytes().decode("latin-1").strip("\0")
    kind = parts["format"].item() if parts["format"].dtype.kind == "U" else kind
    try:
        shape = tuple(map(int, parts["shape"]))
        if kind in ("csr", "csc", "bsr"):
            arrays = parts["data"], parts["indices"], parts["indptr"]
            matrix = getattr(scipy.sparse, f"{kind}_array")(arrays, shape=shape)
            matrix.check_format(full_check=True)  # an index beyond the shape would read beyond the arrays
        elif kind == "coo" and "row" in parts:
            matrix = scipy.sparse.coo_array((parts["data"], (parts["row"], parts["col"])), shape=shape)
        else:
            raise DataError(f"{path.name} holds a sparse matrix of the form {kind!r}: save x.tocsr().")
        return as_csr(matrix, name="it")
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} holds no sparse matrix of rows by columns: {error}") from error


@contextmanager
def _open_member(path: Path, archive: zipfile.ZipFile, member: str) -> Iterator[Any]:
    """Open a member of an archive. Raises DataError if it cannot be unpacked, also while it is read."""
    try:
        with archive.open(member) as stream:
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(
            f"{path.name}: array {member.removesuffix('.npy')!r} cannot be unpacked ({path.stat().st_size} bytes in "
            "all): its bytes do not match their checksum (CRC), or it is packed in a way unknown here. Save it again."
        ) from error


def _describe_shapes(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    return [f"{name} {shape}" for name, shape in shapes.items()]


def is_idx(path: Path) -> bool:
    """True for a file, gzipped or not, that starts as an idx file does."""
    with path.open("rb") as stream:
        start, _ = _gunzip(stream.read(1024))
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in IDX_DTYPES and start[3] > 0


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file (LeCun's format of MNIST), gzipped or not. Raises DataError if bytes are missing."""
    data, whole = _gunzip(path.read_bytes())
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataError(f"{path} is truncated: its header needs {start} bytes, {len(data)} were read.")
    shape = tuple(int(size) for size in np.frombuffer(data, ">i4", count=rank, offset=4))
    dtype = np.dtype(IDX_DTYPES[data[2]])
    expected, seen = math.prod(shape) * dtype.itemsize, len(data) - start
    if seen < expected or not whole:
        raise DataError(f"{path} is truncated: shape {shape} needs {expected} bytes of numbers, {seen} were read.")
    if seen > expected:
        raise DataError(f"{path} is damaged: shape {shape} needs {expected} bytes of numbers, but {seen} follow.")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _gunzip(data: bytes) -> tuple[bytes, bool]:
    """Unzip bytes if they are gzipped.

    Returns:
        The bytes, as far as they could be unzipped, and True if they are complete.
    """
    if not data.startswith(GZIP_MAGIC):
        return data, True
    # wbits=31 expects a gzip header. A decompressor object, unlike gzip.decompress, returns what precedes a truncation.
    unzip = zlib.decompressobj(wbits=31)
    try:
        return unzip.decompress(data), unzip.eof
    except zlib.error:
        return b"", False


def array_dataset(name: str, array: Any, *, columns: Any, truth: Any, drop: Any, y: np.ndarray | None) -> Dataset:
    """The `Dataset` of an (n, d) array, or of (n, h, w[, c]) images.

    ``truth`` and ``drop`` are indices of columns that hold classes, or are no features. The rows of a sparse matrix
    stay sparse.
    """
    if scipy.sparse.issparse(array):
        return _sparse_dataset(name, array, columns=columns, truth=truth, drop=drop, y=y)
    x, image_shape = as_samples(array, name)
    width = x.shape[1]
    chosen = choose_columns(columns, None, width, name)
    if drop is not None:
        chosen = exclude_columns(drop, chosen, None, width, name)
    if truth is not None:
        index = column_index(truth, None, width, f"{name}: truth:")
        y = as_labels(array.reshape(x.shape)[:, index], f"{name}: column {index}")
        if columns is not None and chosen is not None:
            check_disjoint(chosen, index, name)
        chosen = [i for i in (range(width) if chosen is None else chosen) if i != index]
    if chosen is not None:
        x, image_shape = to_exact_dtype(x[:, chosen]), None
    return Dataset(name, x, y, None, image_shape)


def _sparse_dataset(name: str, matrix: Any, *, columns: Any, truth: Any, drop: Any, y: np.ndarray | None) -> Dataset:
    if truth is not None:
        raise DataError(f"{name} is sparse: its classes are those of another file (truth=FILE).")
    check_values(matrix, name=name)
    width = matrix.shape[1]
    chosen = choose_columns(columns, None, width, name)
    if drop is not None:
        chosen = exclude_columns(drop, chosen, None, width, name)
    return Dataset(name, matrix if chosen is None else as_csr(matrix[:, chosen], name=name), y)


def as_samples(array: np.ndarray, where: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Check and flatten an array of samples.

    Returns:
        (n, d) numbers in a dtype that holds them all, and the image shape, or None.
    """
    if array.dtype.kind not in "biuf":
        kinds = {"U": "text", "S": "text", "c": "complex numbers", "M": "dates", "V": "records"}
        seen = kinds.get(array.dtype.kind, "no numbers")
        raise DataError(f"{where} holds {seen} (dtype {array.dtype}). Save an array of real numbers.")
    if array.ndim < 2:
        raise DataError(
            f"{where} has shape {array.shape}; rows and columns are needed. Save x.reshape(-1, 1) where each number is "
            "a row."
        )
    if array.size == 0:
        raise DataError(f"{where} is empty: shape {array.shape}. At least one row and one column are needed.")
    return to_exact_dtype(array.reshape(len(array), -1)), _image_shape(array.shape[1:])


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) == 2:
        return shape
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return shape[:2] if shape[2] == 1 else shape
    return None
