"""Examples of public names: doctests of the package, and code of the pages and scripts, that use them."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cache
from textwrap import dedent, indent
from typing import Any, NamedTuple

import jaxcluster
from site_pages.objects import HIDDEN, Entry, entries, places, public_modules
from site_pages.scripts import ROOT, scripts

BLOCK = re.compile(r"^ *```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)

PAGES = (
    "../CONTRIBUTING.md",
    "index.md",
    "start.md",
    "walks.md",
    "tables.md",
    "streaming.md",
    "devices.md",
    "guide/*.md",
)
"""Hand-written pages whose code runs, in `site_pages.blocks` or in the tests."""

TEXTS = ROOT / "docs" / "texts" / "reference"
"""Examples of the names of a module, ``MODULE.txt``: doctests between lines of prose."""

LONGEST_LIST = 4
"""Links to pages and scripts that use a name, beyond which no more are shown."""


class Example(NamedTuple):
    """Code that runs, and where it is.

    Attributes:
        module: the module of a doctest, "" for the code of a page.
        page: the page of the site that shows it, "" for a doctest.
        title: the heading of the page.
        code: a doctest as it is written, or the part of a script that may be shown alone.
        objects: the ids of the objects that it names.
        attributes: the attributes that it reads.
    """

    module: str
    page: str
    title: str
    code: str
    objects: frozenset[int]
    attributes: frozenset[str]


def _used(source: str, names: dict[str, Any]) -> tuple[frozenset[int], frozenset[str]]:
    """The objects that code names, without running it: only its imports of this package are followed.

    Args:
        source: the code.
        names: what is known by name; imports are added.

    Returns:
        The ids of the objects, and the names of all attributes that are read.
    """
    tree = ast.parse(source)
    # A string may be the program of another process.
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Constant) and str(node.value).startswith("from jaxcluster import"):
            tree.body += ast.parse(node.value).body
    for node in ast.walk(tree):
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "jaxcluster"
        if isinstance(node, ast.Import):
            ours = all(alias.name.partition(".")[0] == "jaxcluster" for alias in node.names)
        if not ours:
            continue
        # The page on adding a method imports one that does not exist.
        with contextlib.suppress(ImportError):
            exec(compile(ast.Module([node], []), "import", "exec"), names)

    def value_of(node: ast.AST) -> Any:
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Attribute):
            parent = value_of(node.value)
            return getattr(parent, node.attr, None) if inspect.ismodule(parent) else None
        return None

    chains = [node for node in ast.walk(tree) if isinstance(node, (ast.Name, ast.Attribute))]
    found = frozenset(id(value) for value in map(value_of, chains) if value is not None)
    return found, frozenset(node.attr for node in chains if isinstance(node, ast.Attribute))


def _docstrings(module: Any) -> list[str]:
    tree = ast.parse(inspect.getsource(module))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]


def _doctests() -> list[Example]:
    found = []
    for each in pkgutil.walk_packages(jaxcluster.__path__, "jaxcluster."):
        if each.name.startswith(HIDDEN) or each.name.endswith("__main__"):
            continue
        module = importlib.import_module(each.name)
        for text in _docstrings(module):
            parsed = doctest.DocTestParser().get_examples(text)
            if parsed:
                blocks = [block for block in re.split(r"\n\s*\n", text) if ">>>" in block]
                code = "\n\n".join(inspect.cleandoc(block[block.index(">>>") :]) for block in blocks)
                objects, attributes = _used("".join(part.source for part in parsed), dict(vars(module)))
                found.append(Example(each.name, "", "", code, objects, attributes))
    return found


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Split a text of examples into paragraphs: a line of prose, if any, with the doctest below it.

    Returns:
        The text and the code of each.
    """
    found, prose = [], ""
    for block in re.split(r"\n\s*\n", text.strip()):
        if not block.startswith(">>>"):
            prose = block + "\n\n"
            continue
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(block))
        found.append((prose + block, code))
        prose = ""
    return found


def _texts() -> list[Example]:
    """Paragraphs of the files of examples, each with those before it that make what it uses."""
    found = []
    for path in sorted(TEXTS.glob("*.txt")):
        public = "jaxcluster" if path.stem == "jaxcluster" else f"jaxcluster.{path.stem}"
        paragraphs, names = _paragraphs(path.read_text()), {}
        made: dict[str, int] = {}
        needs: list[set[int]] = []
        for at, (_, code) in enumerate(paragraphs):
            loads = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
            before = {made[name] for name in loads & made.keys()}
            needs.append(before.union(*(needs[each] for each in before)))
            made |= dict.fromkeys(_bound(code), at)
            objects, attributes = _used(code, names)
            shown = "\n\n".join(paragraphs[each][0] for each in sorted(needs[at] | {at}))
            found.append(Example(public_modules()[public].__name__, "", "", shown, objects, attributes))
    return found


def _bound(code: str) -> set[str]:
    """Names that code imports, assigns or defines."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
    return names


def _pages() -> list[Example]:
    found = []
    for script in scripts():
        # The first cell of a method's script is a whole example.
        cell = script.cells().get("Estimator", "") if script.folder == "methods" else ""
        found.append(Example("", f"/gallery/{script.name}", script.title, cell, *_used(script.code, {})))
    for pattern in PAGES:
        for path in sorted((ROOT / "docs").glob(pattern)):
            text, names, objects, attributes = path.read_text(), {}, set(), set()
            for block in map(dedent, BLOCK.findall(text)):
                # Lines of a longer list, such as entries of a dictionary, are no program.
                with contextlib.suppress(SyntaxError):
                    more, read = _used(block, names)
                    objects |= more
                    attributes |= read
            heading = text.partition("\n")[0].removeprefix("# ")
            outside = "/about/" + path.stem.lower()
            place = outside if pattern.startswith("..") else f"/{path.relative_to(ROOT / 'docs').with_suffix('')}"
            found.append(Example("", place, heading, "", frozenset(objects), frozenset(attributes)))
    return found


@cache
def examples() -> tuple[Example, ...]:
    """Read every doctest of the package and of the texts, and the code of every page and script.

    Returns:
        All of them, doctests first.
    """
    return (*_doctests(), *_texts(), *_pages())


def _shows(example: Example, entry: Entry) -> bool:
    fields = getattr(entry.value, "_fields", None)
    if id(entry.value) in example.objects:
        return True
    # What a function returns is not named: its fields are read.
    places_ = (getattr(entry.value, "__module__", None), public_modules()[entry.module].__name__)
    same = bool(example.module) and example.module in places_
    return bool(fields) and same and bool(example.attributes & {*fields, "state"})


def own_example(value: Any) -> bool:
    """True if the docstring of an object, or of one of its methods, has an example."""
    texts = [inspect.getdoc(value) or ""]
    if inspect.isclass(value):
        members = [each for name, each in vars(value).items() if not name.startswith("_")]
        kinds = (classmethod, staticmethod, property)
        texts += [inspect.getdoc(each) or "" for each in members if inspect.isroutine(each) or isinstance(each, kinds)]
    return any(">>>" in text for text in texts)


def examples_of(entry: Entry) -> list[Example]:
    """Doctests that use a public name, and then the pages; those with their imports and short ones come first."""
    found = [example for example in examples() if _shows(example, entry)]
    own = public_modules()[entry.module].__name__
    return sorted(found, key=lambda each: (bool(each.page), not _imports(each), each.module != own, len(each.code)))


def _imports(example: Example) -> bool:
    return bool(re.search(r"(import|from) jaxcluster", example.code))


def needs_example(entry: Entry) -> bool:
    """True for the classes and functions of this package; constants show their values."""
    value = entry.value
    ours = str(getattr(value, "__module__", "")).startswith("jaxcluster")
    documented = places()[entry.full_name] == entry.full_name and not inspect.ismodule(value)
    return documented and ours and callable(value) and not own_example(value)


def without_example() -> list[str]:
    """Public names that no example uses."""
    return [entry.full_name for entry in entries() if needs_example(entry) and not examples_of(entry)]


def shown(entry: Entry) -> str:
    """The shortest example of a name that has none of its own, and links to pages that use it."""
    found = examples_of(entry)
    parts = []
    shows = [example for example in found if example.code]
    if shows and not own_example(entry.value):
        code = shows[0].code
        if shows[0].page:
            code = ".. code-block:: python\n\n" + indent(code, "    ")
        parts.append(":Examples:\n\n" + indent(code, "    "))
    links = [f":doc:`{example.title} <{example.page}>`" for example in found if example.page]
    if links:
        parts.append(f":Used in: {', '.join(links[:LONGEST_LIST])}")
    return "\n\n".join(parts)
