"""Arrays of other frameworks, such as PyTorch, CuPy and TensorFlow, by DLPack: shared with their owner, not copied.

On the host an array becomes NumPy's; one on a device that JAX has becomes a JAX array there. An array on a device that
JAX has not is refused: a silent copy would cross a bus, and is the caller's to choose.

>>> import numpy as np
>>> as_array(np.ones(2)).tolist(), as_array([1, 2])
([1.0, 1.0], [1, 2])

Source: the DLPack protocol of the Python array API standard, data-apis.org/array-api.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

HOST_DEVICES = {1: "the host", 3: "pinned memory of the host"}
"""Kinds of DLPack devices whose memory NumPy reads."""

JAX_DEVICES = {2: "cuda", 10: "rocm", 13: "cuda"}
"""Kinds of DLPack devices that JAX may have, and JAX's name of the platform."""

OTHER_DEVICES = {4: "an OpenCL device", 7: "a Vulkan device", 8: "a Metal device", 14: "a oneAPI device"}
"""Words for some kinds of DLPack devices that JAX shares no memory with."""

FAILURES = (BufferError, RuntimeError, TypeError, ValueError, AttributeError)
"""Exceptions with which owners and readers refuse an exchange."""


def as_array(x: Any, *, name: str = "x") -> Any:
    """NumPy or JAX array in the memory of an array of another framework or image; anything else as it is.

    Args:
        x: any object.
        name: of it in messages.

    Raises:
        TypeError: it lies on a device that JAX has not, needs a gradient, or its owner refuses to share it.
    """
    if isinstance(x, (np.ndarray, np.generic, jax.Array)):
        return x
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        if hasattr(x, "__cuda_array_interface__") and not hasattr(x, "__array__"):
            raise TypeError(f"{name} is {_kind(x)} on a CUDA device without DLPack. Pass cupy.asarray({name}).")
        return np.asarray(x) if hasattr(x, "__array_interface__") and not hasattr(x, "__array__") else x
    if getattr(x, "requires_grad", False) is True:
        raise TypeError(f"{name} is {_kind(x)} that needs a gradient, and a fit gives none. Pass {name}.detach().")
    try:
        kind, number = (int(each) for each in x.__dlpack_device__())
    except FAILURES as error:
        raise TypeError(f"{name} is {_kind(x)} that cannot be shared: {error} Pass np.asarray({name}).") from error
    if kind in HOST_DEVICES:
        with warnings.catch_warnings():  # an owner may warn of the version of DLPack that NumPy asks for
            warnings.simplefilter("ignore", DeprecationWarning)
            return _on_host(x, name)
    return _on_device(x, name, kind, number)


def _on_host(x, name):
    try:
        return np.from_dlpack(x)
    except FAILURES:
        pass
    try:  # half precisions that NumPy has not
        return jax.dlpack.from_dlpack(x)
    except FAILURES as error:
        if hasattr(x, "__array__"):
            return np.asarray(x)
        raise TypeError(f"{name} is {_kind(x)} that cannot be shared: {error}") from error


def _on_device(x, name, kind, number):
    platform = JAX_DEVICES.get(kind)
    where = f"{platform} device {number}" if platform else OTHER_DEVICES.get(kind, f"a device of DLPack's kind {kind}")
    remedy = f"Move it to the host, such as {name}.cpu() or cupy.asnumpy({name})"
    if platform not in _platforms():
        install = ", or install JAX for that device" if platform else ""
        raise TypeError(f"{name} is {_kind(x)} on {where}, and JAX has {_seen()}. {remedy}{install}.")
    try:
        return jax.dlpack.from_dlpack(x)
    except FAILURES as error:
        raise TypeError(f"{name} is {_kind(x)} on {where} that JAX cannot share: {error} {remedy}.") from error


def _platforms():
    names = {device.platform for device in jax.devices()}
    return names | ({"cuda", "rocm"} if "gpu" in names else set())


def _seen():
    return ", ".join(sorted({f"{device.platform} devices" for device in jax.devices()}))


def _kind(x):
    return f"a {type(x).__module__.partition('.')[0]}.{type(x).__name__}"
