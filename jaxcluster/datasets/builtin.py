"""Sets that need no file: those bundled with scikit-learn, and generated ones such as ``blobs:n=1000,k=5``."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.datasets.base import DataError, Dataset, unknown

BUNDLED = ("digits", "iris", "wine", "breast_cancer")

GENERATED: dict[str, dict[str, int | float]] = {
    "blobs": {"n": 1000, "d": 2, "k": 5, "std": 1.0, "seed": 0},
    "moons": {"n": 1000, "noise": 0.05, "seed": 0},
    "circles": {"n": 1000, "noise": 0.05, "factor": 0.5, "seed": 0},
}
"""Options of each generator with their defaults; an option has its default's type."""


def is_builtin(spec: str) -> bool:
    """Whether ``spec`` starts with the name of a built-in set."""
    name = spec.partition(":")[0]
    return name in BUNDLED or name in GENERATED


def usage() -> list[str]:
    """Every built-in set as it is written, options with their defaults."""
    generated = (f"{name}:{','.join(f'{o}={v}' for o, v in options.items())}" for name, options in GENERATED.items())
    return [*BUNDLED, *generated]


def builtin(spec: str) -> Dataset:
    """The built-in set ``spec``. Raises DataError for an option that is unknown or out of range."""
    name, colon, options = spec.partition(":")
    if name in GENERATED:
        return _generate(name, spec, _parse(name, options))
    if colon:
        raise DataError(f"{name} takes no options, got {options!r}. Write just {name!r}.")
    return _bundled(name)


def _bundled(name: str) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return Dataset(
        name=name,
        x=np.asarray(bunch.data, np.float64),
        y=np.asarray(bunch.target_names)[bunch.target],
        columns=[str(column) for column in bunch.feature_names],
        image_shape=bunch.images.shape[1:] if "images" in bunch else None,
    )


def _parse(name: str, text: str) -> dict[str, Any]:
    options = dict(GENERATED[name])
    for part in filter(None, (part.strip() for part in text.split(","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if option not in options:
            raise unknown(f"{name}: option", option, options)
        if not equals:
            raise DataError(f"{name}: option {option!r} has no value; write for example {option}={options[option]}.")
        options[option] = _number(f"{name}: {option}", value, type(options[option]))
    for option, value in options.items():
        least = 1 if option in ("n", "d", "k") else 0
        if not value >= least:
            raise DataError(f"{name}: {option}={value} must be at least {least}.")
    return options


def _number(what: str, text: str, kind: type) -> int | float:
    """``text`` as an int or a finite float; 1e6 is an integer here."""
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{what} must be a number, got {text!r}.") from None
    if not np.isfinite(value) or (kind is int and value != int(value)):
        raise DataError(f"{what} must be {'an integer' if kind is int else 'finite'}, got {text!r}.")
    return kind(value)


def _generate(name: str, spec: str, options: dict[str, Any]) -> Dataset:
    from sklearn import datasets

    n, seed = options["n"], options["seed"]
    if name == "blobs":
        x, y = datasets.make_blobs(n, options["d"], centers=options["k"], cluster_std=options["std"], random_state=seed)
    elif name == "moons":
        x, y = datasets.make_moons(n, noise=options["noise"], random_state=seed)
    else:
        if options["factor"] >= 1:
            raise DataError(f"circles: factor={options['factor']} must be less than 1: the inner circle's radius.")
        x, y = datasets.make_circles(n, noise=options["noise"], factor=options["factor"], random_state=seed)
    return Dataset(name=spec, x=x, y=y)
