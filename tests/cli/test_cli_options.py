"""Options of the methods: derived from their estimators, shown by their help, and answered where a method has none."""

from __future__ import annotations

import inspect
import re
import shlex

import pytest
from command_line import call, refuse

from jaxcluster import datasets, hdbscan, kmeans, optics, spectral
from jaxcluster.cli import options
from jaxcluster.cli.fit import method_command
from jaxcluster.cli.method_options import (
    PYTHON_ONLY,
    WITHOUT_OPTION,
    documented,
    make_estimator,
    method_parameters,
    parse,
)
from jaxcluster.cli.training import keeps_checkpoints
from jaxcluster.deep.autoencoder import LIKELIHOODS
from jaxcluster.estimators import ESTIMATORS
from jaxcluster.estimators.deep.autoencoder_base import PRETRAINING
from jaxcluster.estimators.kmedoids import METHODS
from jaxcluster.ops import distance
from jaxcluster.ops.gaussian import COVARIANCE_TYPES

FITTED = [name for name in ESTIMATORS if ESTIMATORS.info(name).labels]


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("10", "auto", 10),
        ("auto", "auto", "auto"),
        ("1", 0.5, 1.0),
        ("1e3", 300, 1000),
        ("None", 10, None),
        ("TRUE", False, True),
        ("0.25", None, 0.25),
        ("random", "k-means++", "random"),
    ],
)
def test_a_parameter_has_the_type_of_its_default(text, default, value):
    parsed = parse("name", text, default)
    assert (parsed, type(parsed)) == (value, type(value))


def test_scalings_on_offer_are_the_librarys():
    assert sorted(options.Scale) == sorted(datasets.SCALINGS)


def choices(method: str) -> dict[str, list[str]]:
    return {name: sorted(words) for name, words in ESTIMATORS.info(method).choices.items()}


def test_the_choices_on_offer_are_those_of_the_library():
    assert choices("kmeans")["metric"] == sorted(kmeans.METRICS)
    assert choices("kmedoids")["method"] == sorted(METHODS)
    for method in ("kmedoids", "dbscan", "optics", "hdbscan"):
        assert choices(method)["metric"] == sorted([*distance.METRICS, "gower"])
    assert choices("gmm")["covariance_type"] == choices("bayesian-gmm")["covariance_type"] == sorted(COVARIANCE_TYPES)
    assert choices("spectral")["assign_labels"] == sorted(spectral.ASSIGNMENTS)
    assert {*choices("spectral")["affinity"]} == {name for name in spectral.AFFINITIES if "precomputed" not in name}
    assert choices("optics")["cluster_method"] == sorted(optics.METHODS)
    assert choices("hdbscan")["cluster_selection_method"] == sorted(hdbscan.METHODS)
    assert choices("dec")["likelihood"] == sorted(LIKELIHOODS)
    assert choices("dec")["pretrain"] == sorted(PRETRAINING)


@pytest.mark.parametrize("method", FITTED)
def test_every_option_is_a_parameter_with_a_text(method):
    cls, info, texts = ESTIMATORS[method], ESTIMATORS.info(method), documented(ESTIMATORS[method])
    parameters = set(inspect.signature(cls).parameters)
    assert parameters <= set(texts)
    names = {param.name for param in method_command(method).params}
    shared = {param.name for param in method_command("dbscan").params} - set(
        inspect.signature(ESTIMATORS["dbscan"]).parameters
    )
    extras = {"must_link", "cannot_link", "weights"} | ({"labels"} if info.takes_classes else set())
    extras |= {"tensorboard", "max_iter"} if info.family == "deep" else set()
    extras |= {"resume"} if keeps_checkpoints(method, info.family) else set()
    extras |= {"distributed"} if info.takes_processes else set()
    extras |= {"stream", "max_memory"} if info.takes_sources else set()
    assert names - shared - extras <= parameters - PYTHON_ONLY
    assert info.clusters in (None, *names)
    assert not names & WITHOUT_OPTION
    assert ("weights" in names) == ("sample_weight" in inspect.signature(cls.fit).parameters)


@pytest.mark.parametrize("method", ["kmeans", "gmm", "dbscan", "dec"])
def test_help_of_a_method_shows_its_own_options(method):
    shown = call("fit", method, "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", shown))
    assert ("--reg-covar" in options) == ("--covariance" in options) == (method == "gmm")
    assert ("--eps" in options) == ("--min-samples" in options) == (method == "dbscan")
    assert ("--latent" in options) == ("--tensorboard" in options) == (method == "dec")
    assert ("--resume" in options) == (method != "dbscan")
    assert ("--seed" in options) == ("--k" in options) == (method != "dbscan")
    default = {"kmeans": "300", "gmm": "1e-06", "dbscan": "0.5", "dec": "256,256,512"}[method]
    assert f"[default: {default}]" in " ".join(shown.replace("│", " ").split())


def test_help_of_fit_lists_the_methods():
    shown = call("fit", "--help").stdout
    for name in FITTED:
        assert re.search(rf"^│ {name} ", shown, re.MULTILINE), name
    assert "spectral-embedding" not in shown
    assert "--eps" not in shown


def test_options_may_stand_before_the_method(tmp_path):
    call("fit", "--k", 3, "--quiet", "--no-report", "kmeans", "iris", "--out", tmp_path / "run")
    assert (tmp_path / "run" / "labels.csv").exists()


def test_unknown_option_is_answered_with_known_ones(tmp_path):
    line = refuse("fit", "dbscan", "iris", "--nonsense", 1, "--out", tmp_path / "run")
    assert re.search("No such option: --nonsense.*The options of jaxcluster fit dbscan are --out.*--eps", line)


def test_a_command_takes_several_starts():
    assert make_estimator("kmeans", {"n_clusters": 3}, []).n_init == 10
    assert make_estimator("gmm", {"n_components": 3}, []).n_init == 3
    assert make_estimator("kmeans", {"n_clusters": 3, "n_init": "auto"}, []).n_init == "auto"
    assert make_estimator("kmeans", {"n_clusters": 3}, ["n-init=2"]).n_init == 2
    assert make_estimator("balanced-kmeans", {"n_clusters": 3}, []).n_init == "auto"
    assert "[default: 10]" in next(param.help for param in method_command("kmeans").params if param.name == "n_init")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("kmeans", "--n-clusters", "3"), "--n-clusters is no option of kmeans: pass --k."),
        (("gmm", "--random-state", "3"), "--random-state is no option of gmm: pass --seed."),
        (("kmeans", "--copy-x", "1"), "pass --param copy_x=VALUE."),
        (("kmeans", "--frozen", "1"), "frozen can be chosen in Python alone."),
        (("minibatch-kmeans", "--k", "3", "--param", "compute_labels=false"), "compute_labels can be chosen in Python"),
        (("dec", "--k", "3", "--tol", "never"), "'never' is neither a number nor none"),
        (("dec", "--k", "3", "--batch-size", "0"), "0 is less than 1"),
    ],
)
def test_a_parameter_without_its_option_is_explained(words, message, tmp_path):
    method, *rest = words
    assert message in refuse("fit", method, "iris", *rest, "--out", tmp_path / "run")


def test_words_stand_for_numbers_where_help_says_so():
    options = {parameter.name: parameter.annotation for parameter in method_parameters("dec")}
    for name, word in (("tol", "none"), ("batch_size", "auto"), ("pretrain_epochs", "none")):
        assert options[name].__metadata__[0].parser(word) == word


def test_greek_letters_stay_as_they_are():
    from jaxcluster import IDEC

    assert documented(IDEC)["gamma"].startswith("γ")


def test_help_wraps_paragraphs_and_flags_take_no_value():
    shown = call("predict", "--help").stdout
    assert "words. A text table has" in shown
    assert "<bool>" not in shown


@pytest.mark.parametrize("method", FITTED)
def test_the_example_of_a_method_can_be_typed(method):
    """The help of a method and its page in the documentation show this line."""
    command = method_command(method)
    words = shlex.split(command.help.rsplit(f"jaxcluster fit {method} ", 1)[1])
    context = command.make_context(method, words)
    assert context.params["out"].parts[0] == "runs"
