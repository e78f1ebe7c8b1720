"""Public objects of the package: every name of every ``__all__``, and the one place where it is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jaxcluster
from jaxcluster.estimators import CLASSES

HIDDEN = ("jaxcluster.cli",)
"""Modules that are no library: the command line has pages of its own."""


class Entry(NamedTuple):
    """A public name.

    Attributes:
        module: the module in whose ``__all__`` it is, by its public name.
        name: its name there.
        value: the object.
    """

    module: str
    name: str
    value: Any

    @property
    def full_name(self) -> str:
        """The name as a user writes it, with its module."""
        return f"{self.module}.{self.name}"


@cache
def public_modules() -> dict[str, Any]:
    """Modules with an ``__all__``, by the shortest name under which they are public, in order of their names."""
    short = {place: f"jaxcluster.{name}" for name, place in jaxcluster._MODULES.items()}
    found = {"jaxcluster": jaxcluster}
    for each in pkgutil.walk_packages(jaxcluster.__path__, "jaxcluster."):
        if each.name.startswith(HIDDEN) or each.name.endswith("__main__") or "._" in each.name:
            continue
        module = importlib.import_module(each.name)
        if getattr(module, "__all__", None) is not None:
            found[short.get(each.name, each.name)] = module
    return dict(sorted(found.items()))


@cache
def entries() -> tuple[Entry, ...]:
    """List every name of every public module.

    Returns:
        The names with their objects, in the order of the modules.
    """
    return tuple(
        Entry(public, name, getattr(module, name))
        for public, module in public_modules().items()
        for name in module.__all__
    )


def _is_plain(value: Any) -> bool:
    return not (callable(value) or inspect.ismodule(value)) or not hasattr(value, "__module__")


@cache
def places() -> dict[str, str]:
    """The full name under which each public name is documented: its own, or that of the same object elsewhere."""
    first: dict[int, str] = {}
    found = {}
    # Estimators are documented at the top, where users find them; all else in its module, not at the top.
    classes = {entry.location.split(":")[1] for entry in CLASSES.values()}
    modules = public_modules()

    def preference(entry: Entry):
        own = str(getattr(entry.value, "__module__", "")).startswith(modules[entry.module].__name__)
        return (entry.module == "jaxcluster") != (entry.name in classes), not own

    order = sorted(entries(), key=preference)
    for entry in order:
        if inspect.ismodule(entry.value) or _is_plain(entry.value):
            found[entry.full_name] = entry.full_name
        else:
            found[entry.full_name] = first.setdefault(id(entry.value), entry.full_name)
    return found


@cache
def _by_word() -> dict[str, str]:
    words: dict[str, str] = {}
    ambiguous = set()
    for full, place in places().items():
        short = full.rpartition(".")[2]
        if words.setdefault(short, place) != place:
            ambiguous.add(short)
        words[full] = place
        words.setdefault(full.removeprefix("jaxcluster."), place)
    for full, module in public_modules().items():
        # Names may be written with the module's real name: jaxcluster.cluster.kmeans.fit.
        for name in module.__all__:
            words.setdefault(f"{module.__name__}.{name}", places()[f"{full}.{name}"])
    return {word: place for word, place in words.items() if word not in ambiguous}


def resolve(words: str) -> str | None:
    """The place of the object that these words name in a docstring; None where they name none."""
    return _by_word().get(words.strip("()"))


def constant_text(module: Any, name: str) -> str:
    """The docstring below the assignment of a constant; "" where there is none."""
    try:
        body = ast.parse(inspect.getsource(module)).body
    except (OSError, TypeError):
        return ""
    for before, after in pairwise(body):
        target = getattr(before, "target", None) or next(iter(getattr(before, "targets", ())), None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(after, ast.Expr):
            value = getattr(after.value, "value", None)
            return inspect.cleandoc(value) if isinstance(value, str) else ""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return constant_text(importlib.import_module(node.module), name)
    return ""
