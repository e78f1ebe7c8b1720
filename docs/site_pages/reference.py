"""The reference: a page for each public module, and for each estimator, from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from textwrap import indent
from typing import Any

from flax import nnx

import jaxcluster
from jaxcluster.core.docstrings import complete
from jaxcluster.estimators import CLASSES
from site_pages import examples
from site_pages.objects import Entry, constant_text, entries, places, public_modules, resolve
from site_pages.rst import document, inline

LONGEST_VALUE = 200
"""Characters of the value of a constant, beyond which it is left out."""


def annotation(value: Any) -> str:
    """An annotation as it is written in the source."""
    if value is inspect.Parameter.empty:
        return ""
    value = getattr(value, "__forward_arg__", value)
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return re.sub(r"\s+", " ", text)


def signature_of(value: Any) -> tuple[str, dict[str, str]]:
    """Parameters of a function or class.

    Returns:
        The list with defaults and without annotations, in parentheses; annotations by parameter, without Any.
    """
    try:
        # Classes of Flax show the parameters of their metaclass.
        signature = inspect.signature(value.__init__ if isinstance(value, type(nnx.Module)) else value)
    except (TypeError, ValueError):
        return "(...)", {}
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    kinds = {
        each.name: annotation(each.annotation) for each in parameters if annotation(each.annotation) not in ("Any", "")
    }
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    # Addresses and multi-line values of defaults say nothing to a reader.
    text = re.sub(r"<(?:function|class|object)? ?'?([\w.]+)[^>]*>", r"\1", text)
    return re.sub(r"\s+", " ", text), kinds


def returned(value: Any) -> str:
    """A line with the annotation of what a function returns; "" where it says nothing."""
    try:
        text = annotation(inspect.signature(value).return_annotation)
    except (TypeError, ValueError):
        return ""
    return f":Return type: ``{text}``" if text not in ("", "None", "Any") else ""


def directive(kind: str, head: str, body: str, *options: str) -> str:
    """A directive of Sphinx's Python domain with a body."""
    lines = [f".. py:{kind}:: {head}", *(f"   {option}" for option in options), "", indent(body, "   "), ""]
    return "\n".join(lines)


def function(name: str, value: Any, *, kind: str = "function", options: tuple[str, ...] = (), example: str = "") -> str:
    """A function or method with its signature, docstring and example."""
    shown, kinds = signature_of(value)
    text = document(inspect.getdoc(value) or "", types=kinds, resolve=resolve)
    result = returned(value)
    return directive(kind, name + shown, "\n\n".join(part for part in (text, result, example) if part), *options)


def _members(cls: type) -> list[tuple[str, Any]]:
    """Public methods and properties that this package defines, in the order of their names."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("jaxcluster"):
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    return sorted((name, getattr(cls, name, value)) for name, value in found.items() if name != "info")


def class_(name: str, cls: type, *, example: str = "") -> str:
    """A class with its parameters, fields, example, methods and properties."""
    shown, kinds = signature_of(cls)
    fields = getattr(cls, "_fields", ())
    parts = [document(complete(cls), types={} if fields else kinds, resolve=resolve)]
    notes = getattr(cls, "__annotations__", {})
    if fields and not re.search(r"^Attributes:", inspect.getdoc(cls) or "", re.MULTILINE):
        parts.append(
            ":Fields:\n"
            + indent("\n".join(f"- ``{each}``: ``{annotation(notes.get(each, 'Any'))}``" for each in fields), "    ")
        )
    parts.append(example)
    for member, _ in _members(cls):
        value = inspect.getattr_static(cls, member)
        if member in fields or member in kinds:
            continue
        if isinstance(value, property):
            text = inline((inspect.getdoc(value) or "").split("\n\n")[0], resolve)
            parts.append(directive("property", member, text))
        elif isinstance(value, (classmethod, staticmethod)):
            parts.append(function(member, getattr(cls, member), kind="method", options=(f":{type(value).__name__}:",)))
        elif inspect.isfunction(value) or inspect.isfunction(inspect.unwrap(value) if callable(value) else value):
            parts.append(function(member, value, kind="method"))
    return directive("class", f"{name}{shown}", "\n\n".join(part for part in parts if part))


def constant(entry: Entry, module: Any) -> str:
    """A constant or a type with its text, and its value where it is short."""
    text = document(constant_text(module, entry.name), resolve=resolve)
    value = repr(entry.value)
    if len(value) <= LONGEST_VALUE and "0x" not in value:
        text += f"\n\n:Value: ``{value}``"
    return directive("data", entry.full_name, text.strip() or "\\ ")


def item(entry: Entry) -> str:
    """Documentation of one public name, or where to find it."""
    place = places()[entry.full_name]
    if inspect.ismodule(entry.value):
        return ""
    if place != entry.full_name:
        return directive("data", entry.full_name, f"The same as :py:obj:`{place}`.", ":no-index-entry:")
    if inspect.isclass(entry.value):
        return class_(entry.full_name, entry.value, example=examples.shown(entry))
    if callable(entry.value) and hasattr(entry.value, "__name__"):
        return function(entry.full_name, entry.value, example=examples.shown(entry))
    return constant(entry, public_modules()[entry.module])


def title(text: str, line: str = "=") -> str:
    """A heading."""
    return f"{text}\n{line * max(len(text), 3)}\n"


def summary(value: Any) -> str:
    """The first line of a docstring."""
    return inline((inspect.getdoc(value) or "").split("\n\n")[0], resolve)


def module_page(public: str, module: Any) -> str:
    """The page of one module."""
    own = [entry for entry in entries() if entry.module == public]
    documented = [entry for entry in own if not inspect.ismodule(entry.value)]
    parts = [
        title(public),
        document(inspect.getdoc(module) or "", resolve=resolve),
        f".. py:module:: {public}\n   :no-index-entry:\n\n.. py:currentmodule:: None\n",
    ]
    if public == "jaxcluster":
        classes = {each.location.split(":")[1] for each in CLASSES.values()}
        modules = sorted(f"- :doc:`{e.full_name}`" for e in own if inspect.ismodule(e.value))
        parts += [title("Modules", "-"), "\n".join(modules), title("Estimators", "-")]
        parts.append("\n".join(f"- :doc:`{name}`: {summary(getattr(jaxcluster, name))}" for name in sorted(classes)))
        documented = [entry for entry in documented if entry.name not in classes]
        parts.append(title("Other names", "-"))
    elif len(documented) > 3:
        parts.append("\n".join(_contents(documented)))
    parts += [item(entry) for entry in documented]
    return "\n\n".join(part for part in parts if part) + "\n"


def _contents(own: list[Entry]) -> list[str]:
    lines = [".. list-table::", "   :class: names", "   :widths: 30 70", ""]
    for entry in own:
        plain = not (inspect.isclass(entry.value) or callable(entry.value))
        text = "" if plain else summary(entry.value)
        lines += [f"   * - :py:obj:`{entry.name} <{places()[entry.full_name]}>`", f"     - {text or chr(92) + ' '}"]
    return lines


def estimator_page(name: str) -> str:
    """The page of one estimator class."""
    (entry,) = [each for each in entries() if each.full_name == f"jaxcluster.{name}"]
    registered = entry.value.info.name
    return f"{title(name)}\nThe method: :doc:`/methods/{registered}`.\n\n{item(entry)}\n"


def write(folder: Path) -> list[str]:
    """Write all pages of the reference.

    Returns:
        The names of the pages, in the order of the table of contents.
    """
    pages = {public: module_page(public, module) for public, module in public_modules().items()}
    classes = sorted(each.location.split(":")[1] for each in CLASSES.values())
    pages |= {name: estimator_page(name) for name in classes}
    for name, text in pages.items():
        update(folder / f"{name}.rst", text)
    toc = "\n".join(f"   {name}" for name in pages)
    lines = "\n".join(
        f"   * - :doc:`{public}`\n     - {summary(module) or chr(92) + ' '}"
        for public, module in public_modules().items()
    )
    intro = "Every public name, with its shapes, units, errors and sources. Examples run as tests."
    text = f"{title('Reference')}\n{intro}\n\n"
    text += f".. list-table::\n   :widths: 30 70\n\n{lines}\n\n.. toctree::\n   :hidden:\n\n{toc}\n"
    update(folder / "index.rst", text)
    return list(pages)


def update(path: Path, text: str) -> None:
    """Write a page if it differs from what is there, so that Sphinx reads again only what changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
