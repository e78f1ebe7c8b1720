"""Networks and views of the caller in saved models: an import path and a configuration, never code.

A network says by ``get_config()`` what its constructor takes besides ``rngs``: a dict of data, of which it makes itself
again, and whose values may be networks. Views are functions of a module, and instances of dataclasses. Loading imports
modules, so that it does so only for those of this library and for those that the caller trusts by name.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

PARAMETERS = ("encoder", "decoder", "generator", "critic", "views", "augment")
"""Parameters of deep estimators that may be networks or views."""

OWN = ("jaxcluster.deep.nets", "jaxcluster.deep.views", "jax.nn")
"""Modules whose networks, views and activations need no trust."""

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


class UntrustedCode(ValueError):
    """A module that a saved model names, and that the caller has not said to trust."""


@contextmanager
def trusting(modules: Sequence[str]) -> Iterator[None]:
    """Context in which classes and functions of these modules, and of those within them, are imported.

    Raises:
        TypeError: a name that is no string.
    """
    modules = (modules,) if isinstance(modules, str) else tuple(modules)
    if not all(isinstance(name, str) for name in modules):
        raise TypeError(f"trusted={modules} must hold the names of modules, such as 'mypackage.networks'.")
    token = _trusted.set(modules)
    try:
        yield
    finally:
        _trusted.reset(token)


def describe(value: Any) -> dict[str, Any] | None:
    """Import path and configuration of a network or view, for `rebuild`; None for any other value."""
    # Its function has a path of its own, which is trusted or not like any other.
    if isinstance(value, functools.partial):
        return {"partial": value.func, "args": list(value.args), "keywords": dict(value.keywords)}
    # Activations are defined in private modules of JAX, whose names change.
    if getattr(jax.nn, getattr(value, "__name__", ""), None) is value:
        return {"path": f"jax.nn:{value.__name__}"}
    if inspect.isclass(value) or not callable(value):
        return None
    if hasattr(value, "__qualname__"):
        return {"path": path} if (path := _path_of(value)) else None
    config = _config_of(value)
    path = _path_of(type(value))
    return None if config is None or path is None else {"path": path, "config": config}


def _path_of(value):
    """Import path of a class or function; None for one that a program has made, such as a lambda."""
    path = f"{value.__module__}:{value.__qualname__}"
    return path if "<" not in path and _found(path) is value else None


def _config_of(value):
    if hasattr(value, "get_config"):
        return value.get_config()
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
    return None


def rebuild(content: dict[str, Any], decode: Callable[[Any], Any]) -> Any:
    """The network or view that `describe` described.

    Args:
        content: of the file.
        decode: function from its encoded values to these.

    Raises:
        UntrustedCode: its module is not trusted.
        ValueError: there is no such class or function, or it is neither a network nor a view.
    """
    if "partial" in content:
        function, keywords = decode(content["partial"]), decode(content["keywords"])
        return functools.partial(function, *decode(content["args"]), **keywords)
    path = content["path"]
    module, _, name = path.partition(":")
    trusted = (*OWN, *_trusted.get())
    if not any(module == each or module.startswith(f"{each}.") for each in trusted):
        raise UntrustedCode(
            f"names {name} of the module {module}, which would be imported. If you trust it: "
            f"jaxcluster.load(..., trusted=[{module!r}])."
        )
    made: Any = _found(path)
    if made is None:
        raise ValueError(f"there is no {name} in the module {module}.")
    if "config" not in content:
        if inspect.isclass(made) or not callable(made):
            raise ValueError(f"{name} of {module} is no function.")
        return made
    if not (_is_network(made) or dataclasses.is_dataclass(made)) or not inspect.isclass(made):
        raise ValueError(f"{name} of {module} is neither a network nor a dataclass.")
    config = decode(content["config"])
    if (from_config := getattr(made, "from_config", None)) is not None:
        return from_config(config)
    return made(**config, **_rngs(made))


def _found(path):
    """The class or function of a path; None where there is none that the module itself defines.

    What a module has imported is not its own: a path through it would lead from any module to any other.
    """
    module, _, name = path.partition(":")
    try:
        outer, *inner = name.split(".")
        made = getattr(importlib.import_module(module), outer)
        for each in inner:
            made = getattr(made, each) if inspect.isclass(made) else None
    except (ImportError, AttributeError, ValueError):
        return None
    own = module == "jax.nn" or getattr(made, "__module__", None) == module
    return made if own and callable(made) else None


def _is_network(made):
    from flax import nnx  # not for models without one

    return inspect.isclass(made) and issubclass(made, nnx.Module)


def _rngs(made):
    """The argument ``rngs`` of a network that takes one; its weights are those of the file."""
    from flax import nnx

    return {"rngs": nnx.Rngs(0)} if "rngs" in inspect.signature(made.__init__).parameters else {}
