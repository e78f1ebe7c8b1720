"""Layout of the source: imports point down, files and functions are short, names and docstrings are plain."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOT = REPOSITORY / "jaxcluster"

FOLDERS = ("jaxcluster", "bench", "tests", "examples", "docs")
"""Folders whose files obey the limits of length and the rules of docstrings."""

LEVELS = (
    ("types",),
    ("core",),
    ("ops",),
    ("datasets",),
    ("cluster", "losses", "metrics", "model_selection", "sharding", "checkpoint", "distributed"),
    ("planning",),
    ("deep",),
    ("estimators",),
    ("preprocessing",),
    ("ray",),
    ("plots",),
    ("report",),
    ("cli",),
    ("__main__",),
)
"""Packages and modules that may import those of the levels above them, and of their own."""

OPENERS = re.compile(r"(What|How|Where|Which|Whether|Who|From|By|Of|That|Whatever)\b")

MOODS = frozenset(
    [
        "A_HAIR",
        "A_TRACE",
        "NEARLY",
        "NUDGE",
        "STILL",
        "HARD",
        "FEW",
        "PACE",
        "POINT",
        "FALL",
        "HALF",
        "NOBODY",
        "SETTLED",
        "shares",
        "slope",
        "slopes",
        "moved",
        "settle",
        "settled",
        "told",
        "said",
        "held",
        "placed",
        "stated",
        "opened",
        "soften",
        "survey",
        "meet",
        "ups",
        "chiefs",
        "carry_out",
        "followed",
        "Given",
        "Stated",
        "Placed",
        "Told",
        "Boards",
        "Meeting",
        "Survey",
        "Meaning",
        "Look",
        "Fall",
        "Opening",
        "Todo",
    ]
)
"""Names that say nothing to a reader of the literature: participles, moods, and words of another field."""

MOST_LINES, MOST_OF_A_FUNCTION, MOST_OF_A_TEST_NAME = 500, 80, 50


@cache
def trees(folder: str = "jaxcluster") -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted((REPOSITORY / folder).rglob("*.py"))}


def modules() -> dict[str, Path]:
    return {
        ".".join(("jaxcluster", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in trees()
    }


def imported(tree: ast.Module) -> set[str]:
    """Modules that are imported at the top of a file; names of a package that are modules count as these."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxcluster"):
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("jaxcluster")}
    return found & modules().keys()


def level(module: str) -> int | None:
    parts = module.split(".")
    return next((i for i, names in enumerate(LEVELS) if len(parts) > 1 and parts[1] in names), None)


def test_imports_point_down():
    upward = [
        (module, other)
        for module, path in modules().items()
        for other in imported(trees()[path])
        if level(module) is not None and level(other) is not None and level(other) > level(module)
    ]
    assert upward == []
    assert {module.split(".")[1] for module in modules() if level(module) is None and "." in module} == set()


def test_no_import_circle():
    edges, state = {module: imported(trees()[path]) - {module} for module, path in modules().items()}, defaultdict(int)

    def visit(module, trail):
        assert state[module] != 1, " -> ".join([*trail, module])
        if state[module] == 0:
            state[module] = 1
            for other in edges[module]:
                # A package's __init__ imports its files; a file that imports a sibling is no circle.
                if not module.startswith(f"{other}."):
                    visit(other, [*trail, module])
            state[module] = 2

    for module in edges:
        visit(module, [])


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_short(folder):
    long = []
    for path, tree in trees(folder).items():
        lines = len(path.read_text().splitlines())
        if lines > MOST_LINES:
            long.append((path.name, lines))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                size = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if size > MOST_OF_A_FUNCTION:
                    long.append((path.name, node.name, size))
    assert long == []


def docstrings(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "name", "module"), ast.get_docstring(node) or ""
        body = getattr(node, "body", None)
        for before, after in pairwise(body) if isinstance(body, list) else ():
            documented = isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr)
            if documented and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                yield ast.unparse(getattr(before, "target", None) or before.targets[0]), after.value.value


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_name_the_thing_or_give_an_order(folder):
    assert [
        (path.name, name, text.splitlines()[0])
        for path, tree in trees(folder).items()
        for name, text in docstrings(tree)
        if OPENERS.match(text.strip())
    ] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_tuples_that_are_returned_are_described(folder):
    assert [
        (path.name, node.name)
        for path, tree in trees(folder).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns
        if ast.unparse(node.returns).startswith("tuple[") and "Returns:" not in (ast.get_docstring(node) or "")
    ] == []


def names(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name.lstrip("_")
        if isinstance(node, ast.arg):
            yield node.arg.lstrip("_")
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id.lstrip("_")


def test_names_of_tests_are_short():
    """A name that can be typed after -k."""
    named = {
        node.name for tree in trees("tests").values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
    assert [name for name in sorted(named) if name.startswith("test_") and len(name) > MOST_OF_A_TEST_NAME] == []


def test_names_are_those_of_the_field():
    assert {path.name: bad for path, tree in trees().items() if (bad := sorted(set(names(tree)) & MOODS))} == {}


@pytest.mark.parametrize("package", ["cluster", "deep", "estimators", "ops", "core"])
def test_a_package_says_what_it_holds(package):
    assert ast.get_docstring(trees()[ROOT / package / "__init__.py"])
