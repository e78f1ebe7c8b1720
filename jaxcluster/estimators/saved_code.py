"""Networks and views of the caller in saved models: an import path and a configuration, never code.

A network says by ``get_config()`` what its constructor takes besides ``rngs``: a dict of data, of which it makes itself
again, and whose values may be networks. Views are functions of a module, and instances of dataclasses. Loading imports
modules, so that it does so only for those of this library and for those that the caller trusts by name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

from jaxcluster.core.messages import warn

PARAMETERS = ("encoder", "decoder", "generator", "critic", "views", "augment")
"""Parameters of deep estimators that may be networks or views."""

OWN = ("jaxcluster.deep.nets", "jaxcluster.deep.views", "jax.nn")
"""Modules whose networks, views and activations need no trust."""

SMALL_NETWORK = 1 << 26
"""Number of weights, 256 MiB, up to which a network is made whatever the file holds: critics are not saved."""

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


class MissingCode(ValueError):
    """A class or function that a saved model names, and that cannot be had here."""


class UntrustedCode(MissingCode):
    """A module that a saved model names, and that the caller has not said to trust."""


@contextmanager
def trusting(modules: Sequence[str]) -> Iterator[None]:
    """Context in which classes and functions of these modules, and of those within them, are imported.

    Raises:
        TypeError: a name that is no string.
    """
    modules = (modules,) if isinstance(modules, str) or not isinstance(modules, Iterable) else tuple(modules)
    if not all(isinstance(name, str) for name in modules):
        raise TypeError(f"trusted={modules} must hold the names of modules, such as 'mypackage.networks'.")
    token = _trusted.set(modules)
    try:
        yield
    finally:
        _trusted.reset(token)


def describe(name: str, value: Any) -> dict[str, Any] | None:
    """Import path and configuration of a network or view, for `rebuild`; None for any other value.

    Args:
        name: of the parameter, in messages.
        value: any object.

    Raises:
        TypeError: a ``get_config()`` that gives no arguments of its class.
    """
    # Its function has a path of its own, which is trusted or not like any other.
    if isinstance(value, functools.partial):
        return {"partial": value.func, "args": list(value.args), "keywords": dict(value.keywords)}
    # Activations are defined in private modules of JAX, whose names change.
    if getattr(jax.nn, str(getattr(value, "__name__", "")), None) is value:
        return {"path": f"jax.nn:{value.__name__}"}
    if inspect.isclass(value) or not callable(value):
        return None
    if hasattr(value, "__qualname__"):
        return _described(value, value)
    config = _config_of(name, value)
    return None if config is None else _described(value, type(value), config=config)


def _described(value, made, **config):
    """Description of a class or function by its path; None for one that a program has made, such as a lambda."""
    path = f"{made.__module__}:{made.__qualname__}"
    try:
        if "<" in path or _find(path) is not made:
            return None
    except MissingCode:
        return None
    if made.__module__ == "__main__":
        warn(
            f"{made.__qualname__} is defined in the program itself: only one that defines it, too, can load the model, "
            "by trusted=['__main__']. Move it to a module to load it anywhere."
        )
    source = {} if _is_own(made.__module__) else {"source": _digest_of_source(made)}
    return {"path": path, **source, **config}


def _digest_of_source(made):
    """Digest of the source text of a class or function; None where Python does not know it."""
    try:
        return hashlib.sha256(inspect.getsource(made).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return None


def _config_of(name, value):
    if not hasattr(value, "get_config"):
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else None
        return None if fields is None else {each.name: getattr(value, each.name) for each in fields if each.init}
    label = f"{name} cannot be saved: get_config() of {type(value).__name__}"
    try:
        config = value.get_config()
    except Exception as error:
        raise TypeError(f"{label} raises {_in_one_line(error)}") from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise TypeError(f"{label} returns {str(config)[:80]}, and a dict of the arguments of its class is needed.")
    if "rngs" in config:
        raise TypeError(f"{label} returns rngs, which the class is given when it is loaded. Leave it out.")
    return config


def _in_one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def modules_of(content: Any) -> set[str]:
    """Modules of the classes and functions in encoded content that are the caller's."""
    if isinstance(content, list):
        return set().union(*map(modules_of, content))
    if not isinstance(content, dict):
        return set()
    code = content.get("$code")
    module = code.get("path", "").partition(":")[0] if isinstance(code, dict) else ""
    found = {module} if module and not _is_own(module) else set()
    return found | modules_of(list(content.values()))


def _is_own(module):
    return any(module == each or module.startswith(f"{each}.") for each in OWN)


def rebuild(content: dict[str, Any], decode: Callable[[Any], Any], most: int) -> Any:
    """The network or view that `describe` described.

    Args:
        content: of the file.
        decode: function from its encoded values to these.
        most: number of numbers in the arrays of the file.

    Raises:
        UntrustedCode: its module is not trusted.
        MissingCode: there is no such class or function here, or it cannot be made of its configuration.
        ValueError: it is neither a network nor a view.
    """
    if "partial" in content:
        function, keywords = decode(content["partial"]), decode(content["keywords"])
        return functools.partial(function, *decode(content["args"]), **keywords)
    path = content["path"]
    module, _, name = path.partition(":")
    if not _is_own(module) and not any(module == each or module.startswith(f"{each}.") for each in _trusted.get()):
        raise UntrustedCode(
            f"names {name} of the module {module}, which would be imported. If you trust it: "
            f"jaxcluster.load(..., trusted=[{module!r}])."
        )
    made: Any = _find(path)
    if content.get("source") not in (None, _digest_of_source(made)):
        warn(
            f"{name} of the module {module} is not written as it was when the model was saved, or is another of that "
            "name: the model may predict otherwise."
        )
    if "config" not in content:
        if inspect.isclass(made):
            raise ValueError(f"{name} of {module} is no function.")
        return made
    if not inspect.isclass(made) or not (_is_network(made) or dataclasses.is_dataclass(made)):
        raise ValueError(f"{name} of {module} is neither a network nor a dataclass.")
    config = decode(content["config"])
    make = functools.partial(_make, made, config)
    # No file takes much more memory than it has itself, by a network of the library, which needs no trust.
    if _is_own(module) and _is_network(made) and (n := _size_of(make)) > max(most, SMALL_NETWORK):
        raise ValueError(f"{name} has {n:,} weights, and the file holds {most:,} numbers.")
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise MissingCode(f"names {name} of the module {module}, which raises {_in_one_line(error)}") from error


def _make(made, config):
    if (from_config := getattr(made, "from_config", None)) is not None:
        return from_config(config)
    return made(**config, **_rngs(made))


def _size_of(make):
    """Number of weights of a network, without making it."""
    from flax import nnx

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.eval_shape(lambda: nnx.state(make()))))


def _find(path):
    """The class or function of a path, one that the module itself defines.

    What a module has imported is not its own: a path through it would lead from any module to any other.

    Raises:
        MissingCode: there is none.
    """
    module, _, name = path.partition(":")
    try:
        made = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise MissingCode(
            f"names {name} of the module {module}, which cannot be imported here: {_in_one_line(error)}"
        ) from error
    outer, *inner = name.split(".")
    made = getattr(made, outer, None)
    for each in inner:
        made = getattr(made, each, None) if inspect.isclass(made) and not each.startswith("__") else None
    own = getattr(made, "__module__", None) == module
    if module == "jax.nn":  # the functions themselves are defined in private modules
        own = not inner and not outer.startswith("_")
    if not own or not callable(made):
        raise MissingCode(f"names {name} of the module {module}, and {_place_of(module)} has none of its own.")
    return made


def _place_of(module):
    if module == "__main__":
        return "this program"
    return getattr(sys.modules[module], "__file__", None) or "it"


def _is_network(made):
    from flax import nnx  # not for models without one

    return inspect.isclass(made) and issubclass(made, nnx.Module)


def _rngs(made):
    """The argument ``rngs`` of a network that takes one; its weights are those of the file."""
    from flax import nnx

    return {"rngs": nnx.Rngs(0)} if "rngs" in inspect.signature(made.__init__).parameters else {}
