"""From names and values on the command line to an estimator and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from jaxcluster.cli.errors import MistakeError, mistakes

LISTS = {"channels": "32,64", "crops": "2,0", "hidden": "500,500,2000", "image_shape": "8,8"}
"""Parameters that hold several whole numbers, and an example of each."""

WORDS = {"scaling"}
"""Parameters of which "none" is one of the words."""

PYTHON = {"callbacks", "checkpoint_dir", "critic", "decoder", "encoder", "generator", "optimizer"}
"""Parameters that hold no numbers or words, or a folder that the command line looks after itself."""


def make_estimator(
    algorithm: str,
    options: Mapping[str, Any],
    *,
    clusters: int | None,
    steps: int | None,
    init: str | None,
    params: Sequence[str],
) -> Any:
    """The estimator called ``algorithm`` with its parameters set.

    Args:
        algorithm: its name in `jaxcluster.estimators.ESTIMATORS`.
        options: parameters that have an option of their own; None for one that was not given. A seed is for those
            that use chance: the others give the same result with any.
        clusters, steps, init: for the parameters that hold the number of clusters, the most steps and the way to
            start, whatever their names.
        params: ``NAME=VALUE`` for any other.

    Raises:
        MistakeError: an unknown algorithm or parameter, listing the known ones, or a value of the wrong kind.
    """
    from jaxcluster.core.validation import check_choice
    from jaxcluster.datasets.base import unknown_name
    from jaxcluster.estimators import ESTIMATORS

    with mistakes():
        check_choice("ALGO", algorithm, ESTIMATORS)
    info = ESTIMATORS.info(algorithm)
    if not info.labels:
        raise MistakeError(f"{algorithm} gives rows a place and no cluster. Use {info.class_name} in Python.")
    estimator = ESTIMATORS[algorithm]()
    defaults = estimator.get_params()
    if clusters is not None and info.clusters is None:
        raise MistakeError(f"{algorithm} finds out how many clusters there are: leave out --k.")
    if "random_state" not in defaults:
        options = {name: value for name, value in options.items() if name != "random_state"}
    general = {info.clusters or "k": clusters, info.steps or "max_iter": steps, info.init or "init": init}
    _check_twice({name for name, value in options.items() if value is not None}, general, steps)
    both = [*options.items(), *general.items()]
    values = {name: _plain(value) for name, value in both if value is not None}
    for name, text in map(_split, params):
        if name in values:
            raise MistakeError(f"{name} is given twice: --param {name}={text} and an option of its own.")
        if name in PYTHON and name in defaults:
            raise MistakeError(f"{name} can be chosen in Python alone: leave out --param {name}={text}.")
        values[name] = text
    if info.clusters not in (None, *values):
        raise MistakeError(f"{algorithm} needs a number of clusters: pass --k. jaxcluster sweep helps to choose one.")
    for name, value in values.items():
        if name == "missing" and name not in defaults:
            raise MistakeError(f"--missing means nothing to {algorithm}; gmm takes rows with missing cells.")
        if name not in defaults:
            raise MistakeError(str(unknown_name(f"{algorithm}: parameter", name, defaults)))
        values[name] = parse(name, value, defaults[name]) if isinstance(value, str) else value
    return estimator.set_params(**values)


def _check_twice(options: set[str], general: Mapping[str, Any], steps: int | None) -> None:
    """Refuses an option of a parameter that --max-iter stands for too."""
    for name in sorted(options & {name for name, value in general.items() if value is not None}):
        other = "--max-iter" if general[name] is steps else "another option"
        raise MistakeError(f"{name} is given twice: --{name.replace('_', '-')} and {other}.")


def takes(estimator: Any, name: str) -> bool:
    """Whether the estimator's ``fit`` has a parameter of this name."""
    from sklearn.utils.validation import has_fit_parameter

    return has_fit_parameter(estimator, name)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def parse(name: str, text: str, default: Any) -> Any:
    """``text`` as the kind of thing ``default`` is; "none" is None, and a number may stand for a word.

    >>> parse("n_init", "10", "auto"), parse("tol", "1", 0.5), parse("max_iter", "1e3", 300)
    (10, 1.0, 1000)
    >>> parse("hidden", "500,100", (10,))
    (500, 100)
    """
    word = text.strip().lower()
    if word == "none":
        return word if name in WORDS else None
    if name in LISTS:
        return _numbers(name, text)
    if isinstance(default, bool):
        if word not in ("true", "false"):
            raise MistakeError(f"{name}={text!r} must be true or false.")
        return word == "true"
    try:
        value = float(word)
    except ValueError:
        if isinstance(default, (int, float)):
            raise MistakeError(f"{name}={text!r} must be a number, such as {default}.") from None
        return text
    return int(value) if value.is_integer() and not isinstance(default, float) else value


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        message = f"{name}={text!r} must be whole numbers with commas between them, such as {LISTS[name]}."
        raise MistakeError(message) from None


def _split(param: str) -> tuple[str, str]:
    name, equals, text = param.partition("=")
    if not equals or not name:
        raise MistakeError(f"--param {param!r} must be NAME=VALUE.")
    return name.strip().replace("-", "_"), text
