"""Options of one clustering method, derived from the signature and the docstring of its estimator."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.training import keeps_checkpoints
from jaxcluster.core.docstrings import entries

if TYPE_CHECKING:
    from jaxcluster.estimators import EstimatorInfo

PYTHON_ONLY = {
    *("compute_labels", "critic", "decoder", "encoder", "generator", "mesh", "optimizer"),
    *("frozen", "kernel_params", "mean_prior", "means_init", "metric_params", "precisions_init", "weights_init"),
}
"""Parameters that hold objects or arrays, or without which a run has no labels."""

WITHOUT_OPTION = {
    *("random_state", "verbose", "verbose_interval", "warm_start"),
    *("coef0", "copy", "copy_x", "degree", "eigen_solver", "leaf_size", "memory", "n_jobs"),
}
"""Parameters that every command sets itself (``--seed``), that mean nothing to a single fit, or that are
accepted for compatibility with scikit-learn and change nothing: --param takes them."""

LIST_EXAMPLES = {"channels": "32,64", "crops": "2,0", "hidden": "500,500,2000", "image_shape": "8,8"}
"""Parameters that hold several whole numbers, and an example of each."""

PYTHON_OBJECTS = (
    r", or a callable init\(X, n_clusters, random_state\) that returns them; X is passed as it is",
    r" or a callable(?=, else )",
    r"[,;]? or an? (?:callable|function|optax schedule)[^;.]*",
    r", \(n_clusters, n_features\) (?:centers|modes)(?:, rows as those of X)?",
    r" See [\w.]*\.|:? see [\w.]*\w",
    r" ?\(see [\w.]*; ([^)]*)\)",
)
"""Parts of a docstring that tell of values which no command can take."""

SHELL_TEXTS = {
    "metric": "Distance between rows: {choices}.",
    "augment": "Random shifts and rotations of images in all phases; needs --image-shape.",
    "categorical": "The categorical columns, by number from 0, with commas between them. Those of words, unless given.",
    "views": "auto, or none for no augmentation. auto shifts, crops and recolors images, with --image-shape, and swaps "
    "entries of other rows.",
}
"""Help on parameters whose docstring would be misread in a shell."""

MAX_SHOWN_CHOICES = 5
"""Choices that are shown in place of a value; where there are more the text lists them."""

NONE_IS_A_WORD = {"scaling"}
"""Parameters that take the word "none"; for all others it stands for None."""

WORDS_FOR_NUMBERS = {"none": "None", "auto": '"auto"'}
"""Words that may stand for a number, and how the text of a parameter, or its default, says that they do."""

OPTION_NAMES = {"random_state": "--seed", "covariance_type": "--covariance"}
"""Options with a shorter name than their parameter."""

# Bounds that are the same for every method: an option below is refused before the rows are read.
# The type of the bound is the type of the option.
COUNTS = (
    "batch_size",
    "checkpoint_every",
    "epochs",
    "latent",
    "max_iter",
    "n_neighbors",
    "size_max",
    "update_interval",
)
MINIMUM: dict[str, float] = {
    **dict.fromkeys(COUNTS, 1),
    **dict.fromkeys(("pretrain_epochs", "size_min"), 0),
    **dict.fromkeys(("gamma", "learning_rate", "reg_covar", "tol"), 0.0),
}


def option_name(info: EstimatorInfo, parameter: str) -> str:
    """The option of a parameter.

    >>> from jaxcluster.estimators import ESTIMATORS
    >>> info = ESTIMATORS.info("gmm")
    >>> [option_name(info, name) for name in ("n_components", "init_params", "reg_covar")]
    ['--k', '--init', '--reg-covar']
    """
    named = {info.clusters: "--k", info.init: "--init"} | OPTION_NAMES
    return named.get(parameter, f"--{parameter.replace('_', '-')}")


def documented(cls: type) -> dict[str, str]:
    """The text of each parameter in the ``Args`` of a class and its bases.

    >>> from jaxcluster import KMeans
    >>> sorted(documented(KMeans))[:3]
    ['algorithm', 'copy_x', 'frozen']
    """
    texts = {}
    for base in reversed(cls.__mro__[:-1]):
        for names, text in entries(base, "Args") if vars(base).get("__doc__") else ():
            plain = " ".join(text.replace("`", "").split())
            # A Greek letter is a symbol: its capital is another one.
            first = plain[:1].upper() if plain[:1].isascii() else plain[:1]
            texts |= dict.fromkeys(re.findall(r"\w+", names), first + plain[1:])
    return texts


def method_parameters(method: str) -> list[inspect.Parameter]:
    """Parameters of the command of a method that are its own: an option for each parameter of its estimator.

    Names are those of the estimator; besides there are ``weights``, ``must_link``, ``cannot_link``, ``labels``,
    ``resume`` and ``tensorboard`` for what its ``fit`` takes, and ``max_iter`` where epochs have another name.
    """
    from jaxcluster.estimators import ESTIMATORS

    cls, info = ESTIMATORS[method], ESTIMATORS.info(method)
    defaults, texts = inspect.signature(cls).parameters, documented(cls)
    annotations = {
        name: _annotation(info, name, default_of(info, name, parameter.default), texts.get(name, ""))
        for name, parameter in defaults.items()
        if name not in PYTHON_ONLY | WITHOUT_OPTION
    }
    if info.steps in annotations and info.steps != "max_iter":
        same = typer.Option(metavar="N", min=1, rich_help_panel=opt.METHOD, help=f"The same as --{info.steps}.")
        annotations["max_iter"] = Annotated[int | None, same]
    annotations |= {"weights": opt.Weights} if info.takes_weights else {}
    taken = inspect.signature(cls.fit).parameters
    links = {"must_link": opt.MustLink, "cannot_link": opt.CannotLink}
    annotations |= {name: hint for name, hint in links.items() if name in taken}
    annotations |= {"labels": opt.Labels} if info.takes_classes else {}
    annotations |= {"distributed": opt.Distributed} if info.takes_processes else {}
    annotations |= {"stream": opt.Stream, "max_memory": opt.MaxMemory} if info.takes_sources else {}
    annotations |= {"resume": opt.Resume} if keeps_checkpoints(method, info.family) else {}
    annotations |= {"tensorboard": opt.TensorBoard} if info.family == "deep" else {}
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in annotations.items()]


def default_of(info: EstimatorInfo, parameter: str, default: Any) -> Any:
    """Default of a parameter on the command line, where ``default`` is that of the class.

    Several starts cost a multiple of one fit and find better optima, and a command waits for the compiler longer than
    for them. The class keeps scikit-learn's default.
    """
    return info.starts if parameter == "n_init" and info.starts is not None else default


def _annotation(info: EstimatorInfo, name: str, default: Any, text: str) -> Any:
    """Type, names and help of the option of a parameter."""
    from rich.markup import escape

    option, words = option_name(info, name), tuple(info.choices.get(name, ())) or _quoted_choices(text)
    numbers_too = tuple(word for word, meaning in WORDS_FOR_NUMBERS.items() if meaning in f"{text} {default}")
    text = _shell_text(name, text, words)
    shown = "" if default is None or default is False else f" [dim]{escape(f'[default: {_shown(default)}]')}[/dim]"
    common: dict[str, Any] = {"rich_help_panel": opt.METHOD, "show_default": False}
    if name == info.clusters:
        # The estimator's default is for scikit-learn's sake: a command must say how many.
        return Annotated[int | None, typer.Option("--k", "-k", metavar="K", min=1, help=escape(text), **common)]
    common["help"] = escape(text) + shown
    if isinstance(default, bool):
        return Annotated[bool | None, typer.Option(option if not default else f"{option}/--no-{option[2:]}", **common)]
    if name in MINIMUM:
        least = MINIMUM[name]
        kind, metavar = (float, "X") if isinstance(least, float) else (int, "N")
        if numbers_too:
            parser = partial(_number_or_word, kind, least, numbers_too)
            metavar = "|".join((metavar, *numbers_too))
            return Annotated[str | None, typer.Option(option, metavar=metavar, parser=parser, **common)]
        return Annotated[kind | None, typer.Option(option, metavar=metavar, min=least, **common)]
    if isinstance(default, float):
        return Annotated[float | None, typer.Option(option, metavar="X", **common)]
    return Annotated[str | None, typer.Option(option, metavar=_metavar(name, text, default, words), **common)]


def _metavar(name: str, text: str, default: Any, words: Sequence[str]) -> str:
    """Placeholder in help for the value of an option that is read as text."""
    if name in LIST_EXAMPLES:
        return "N,N,..."
    if isinstance(default, int):
        return "N"
    if words:
        # "k-means||" between bars would read as two more, empty choices.
        return "|".join(words) if len(words) <= MAX_SHOWN_CHOICES and not any("|" in word for word in words) else "NAME"
    if name == "views":
        return "auto|none"
    if default == "auto":
        return "N|auto"
    return "N|none" if re.search(r"\bnone (for|to) ", text) else "VALUE"


def _quoted_choices(text: str) -> tuple[str, ...]:
    """The words that a docstring begins with, in quotation marks.

    >>> _quoted_choices('None, or "canonical" to fit the samples sorted by value.')
    ('none', 'canonical')
    >>> _quoted_choices('"build" (greedy), "random", or for "fasterpam" (n_clusters,) distinct indices of samples.')
    ('build', 'random')
    """
    opening = re.match(r'(None, or )?(?=")', text)
    if opening is None:
        return ()
    words = re.findall(r'(?<!for )"([^"]+)"', text.split(". ")[0])
    return tuple(dict.fromkeys(["none", *words] if opening[1] else words))


def _shell_text(name: str, text: str, choices: Sequence[str]) -> str:
    """The text of a parameter without what only Python can pass.

    >>> _shell_text("learning_rate", "Learning rate of Adam, or an optax schedule, a function from steps.", ())
    'Learning rate of Adam.'
    """
    if name in SHELL_TEXTS and not 0 < len(choices) <= MAX_SHOWN_CHOICES:
        return SHELL_TEXTS[name].format(choices=", ".join(choices))
    for pattern in PYTHON_OBJECTS:
        text = re.sub(pattern, lambda match: f" ({match[1]})" if match.groups() else "", text)
    order = re.match(r"True to (\w)(.*)", text)
    return re.sub(r"\bNone\b", "none", f"{order[1].upper()}{order[2]}" if order else text)


def _number_or_word(kind: type, least: float, words: Sequence[str], text: str) -> Any:
    """A number of at least ``least``, or one of some words."""
    word = str(text).strip().lower()
    if word in words:
        return word
    try:
        number = kind(word)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor {' or '.join(words)}.") from None
    if not number >= least:
        raise typer.BadParameter(f"{text} is less than {least}.")
    return number


def _shown(default: Any) -> str:
    """A default as one would type it."""
    if isinstance(default, (list, tuple)):
        return ",".join(map(str, default))
    return "yes" if default is True else f"{default:g}" if isinstance(default, float) else str(default)


def make_estimator(method: str, given: Mapping[str, Any], params: Sequence[str]) -> Any:
    """The estimator of a method with its parameters set.

    Args:
        method: its name in `jaxcluster.estimators.ESTIMATORS`.
        given: parameters that were given by an option of their own; None for one that was not.
        params: ``NAME=VALUE`` for any other.

    Raises:
        UserError: an unknown parameter, listing the known ones; a value of the wrong kind; no number of clusters.
    """
    from jaxcluster.core.validation import check_choice
    from jaxcluster.datasets.base import unknown_name
    from jaxcluster.estimators import ESTIMATORS

    info, estimator = ESTIMATORS.info(method), ESTIMATORS[method]()
    defaults = estimator.get_params()
    values = {name: value for name, value in given.items() if value is not None}
    if "random_state" not in defaults:
        values.pop("random_state", None)  # without chance every seed gives the same result
    if info.steps != "max_iter" and "max_iter" in values:
        if info.steps in values:
            raise UserError(f"{info.steps} is given twice: --{info.steps} and --max-iter.")
        values[info.steps] = values.pop("max_iter")
    for name, words in info.choices.items():
        if name in values:
            with user_errors():
                check_choice(option_name(info, name), values[name], words)
    for name, text in map(_split, params):
        if name in values:
            raise UserError(f"{name} is given twice: --param {name}={text} and an option of its own.")
        if name in PYTHON_ONLY and name in defaults:
            raise UserError(f"{name} can be chosen in Python alone: leave out --param {name}={text}.")
        values[name] = text
    if info.clusters not in (None, *values):
        raise UserError(f"{method} needs a number of clusters: pass --k. jaxcluster sweep helps to choose one.")
    if "n_init" in defaults:
        values.setdefault("n_init", default_of(info, "n_init", defaults["n_init"]))
    for name, value in values.items():
        if name not in defaults:
            raise UserError(str(unknown_name(f"{method}: parameter", name, defaults)))
        values[name] = parse(name, value, defaults[name]) if isinstance(value, str) else value
    return estimator.set_params(**values)


def unknown_option(method: str | None, option: str) -> str | None:
    """The message for an option of other methods; None for one that no method has."""
    from jaxcluster.datasets.base import unknown_name
    from jaxcluster.estimators import ESTIMATORS

    learners = " and ".join(name for name in ESTIMATORS if ESTIMATORS.info(name).takes_classes)
    messages = {
        "--k": f"{method} finds out how many clusters there are: leave out --k.",
        "--weights": f"{method} counts each row once: leave out --weights.",
        "--labels": f"--labels means nothing to {method}; {learners} learn from them.",
        "--missing": f"--missing means nothing to {method}; gmm and kmeans take rows with missing cells.",
        "--must-link": f"--must-link means nothing to {method}; constrained-kmeans takes it.",
        "--cannot-link": f"--cannot-link means nothing to {method}; constrained-kmeans takes it.",
        "--resume": f"--resume means nothing to {method}, whose fit is not saved in steps.",
        "--tensorboard": f"--tensorboard means nothing to {method}, which trains no network.",
        "--stream": f"{method} needs all rows in memory: leave out --stream; kmeans and gmm take it.",
        "--max-memory": f"{method} needs all rows in memory: leave out --max-memory; kmeans and gmm take it.",
        "--distributed": f"{method} runs in one process: leave out --distributed.",
    }
    if option in ("-k", *messages):
        return messages["--k" if option == "-k" else option]
    names = {spelled: name for name, spelled in OPTION_NAMES.items()}
    name = names.get(option, option.lstrip("-").replace("-", "_"))
    parameters = inspect.signature(ESTIMATORS[method]).parameters if method in ESTIMATORS else {}
    if name in parameters:
        return f"{option} is no option of {method}: {_instead(ESTIMATORS.info(method), name)}"
    # Importing every method takes seconds, and happens for a wrong option alone.
    others = {each for other in ESTIMATORS for each in inspect.signature(ESTIMATORS[other]).parameters}
    if name not in others:
        return None
    return str(unknown_name(f"{method}: parameter", name, ESTIMATORS[method]().get_params()))


def _instead(info: EstimatorInfo, name: str) -> str:
    """Advice on a parameter that has no option of its name."""
    if name in PYTHON_ONLY:
        return f"{name} can be chosen in Python alone."
    if name in WITHOUT_OPTION and name not in OPTION_NAMES:
        return f"pass --param {name}=VALUE."
    return f"pass {option_name(info, name)}."


def parse(name: str, text: str, default: Any) -> Any:
    """``text`` as the type of ``default``; "none" is None, and a number may stand for a word.

    >>> parse("n_init", "10", "auto"), parse("tol", "1", 0.5), parse("max_iter", "1e3", 300)
    (10, 1.0, 1000)
    >>> parse("hidden", "500,100", (10,))
    (500, 100)
    """
    word = text.strip().lower()
    if word == "none":
        return word if name in NONE_IS_A_WORD else None
    if name in LIST_EXAMPLES:
        return _numbers(name, text)
    if isinstance(default, bool):
        if word not in ("true", "false"):
            raise UserError(f"{name}={text!r} must be true or false.")
        return word == "true"
    try:
        value = float(word)
    except ValueError:
        if isinstance(default, (int, float)):
            raise UserError(f"{name}={text!r} must be a number, such as {default}.") from None
        return text
    # "1e3" is a whole number where the default is not a float; infinity stays a float.
    whole = math.isfinite(value) and value.is_integer()
    return int(value) if whole and not isinstance(default, float) else value


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        example = LIST_EXAMPLES[name]
        raise UserError(f"{name}={text!r} must be whole numbers with commas between them, such as {example}.") from None


def _split(param: str) -> tuple[str, str]:
    """Name and value of a ``--param``."""
    name, equals, text = param.partition("=")
    if not equals or not name:
        raise UserError(f"--param {param!r} must be NAME=VALUE.")
    return name.strip().replace("-", "_"), text
