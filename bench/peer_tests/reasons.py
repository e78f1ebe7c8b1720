"""Tests of scikit-learn that are known not to pass, each with its reason: reviewed by hand, and shown in the docs.

An entry speaks for the tests that its pattern names (``*`` stands for anything) and for one error: a test that fails
with another error has no reason.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORDING = "another library's wording"
PRIVATE = "private attribute or function"
STREAM = "another random stream"
DEPRECATION = "another library's deprecation"
REFUSAL = "refused by scikit-learn, accepted here"
FLOAT32 = "float32 arithmetic"

CATEGORIES = {
    WORDING: "An error, a warning or a line of output says in other words what scikit-learn's says.",
    PRIVATE: "The test reads or calls a name of scikit-learn with a leading underscore.",
    STREAM: "The test expects what scikit-learn draws from a seed.",
    DEPRECATION: "The test is about a coming change of scikit-learn's own defaults.",
    REFUSAL: "The test expects an error where jaxcluster has an answer.",
    FLOAT32: "jaxcluster computes in float32 unless JAX's x64 mode is on; the test compares digits beyond that.",
}
"""Kinds of reasons, and what each of them means."""


class Reason(NamedTuple):
    """Why some tests of a file need not pass.

    Attributes:
        tests: file and test, as in "cluster/test_dbscan.py::test_dbscan_sparse*".
        category: one of `CATEGORIES`.
        sentence: the reason, for a reader of the docs.
        error: a part of the error that it speaks for.
    """

    tests: str
    category: str
    sentence: str
    error: str = ""

    def names(self, test: str) -> bool:
        """True if the pattern matches this test."""
        return re.fullmatch(".*".join(map(re.escape, self.tests.split("*"))), test, re.DOTALL) is not None

    def explains(self, test: str, error: str) -> bool:
        """True if this reason explains a failure."""
        return self.names(test) and self.error in error


NO_MATCH = "Regex pattern did not match"
RELATIVE = "Not equal to tolerance rtol=1e-07"
SEVEN_DECIMALS = "not almost equal to 7 decimals"

REASONS: tuple[Reason, ...] = (
    Reason(
        "cluster/test_k_means.py::test_kmeans_init_auto_with_initial_centroids*",
        PRIVATE,
        "It reads the number of starts from `_n_init`.",
        "no attribute '_n_init'",
    ),
    Reason(
        "cluster/test_k_means.py::test_n_init_auto*",
        PRIVATE,
        "It reads the number of starts from `_n_init`.",
        "no attribute '_n_init'",
    ),
    Reason(
        "cluster/test_k_means.py::test_minibatch_kmeans_init_size",
        PRIVATE,
        "It reads the number of rows that a start is drawn from in `_init_size`.",
        "no attribute '_init_size'",
    ),
    Reason(
        "cluster/test_k_means.py::test_sample_weight_init*",
        PRIVATE,
        "It calls `_init_centroids`; a start by weights is tested in tests/cluster/test_seeding.py.",
        "no attribute '_init_centroids'",
    ),
    Reason(
        "cluster/test_k_means.py::test_sample_weight_zero*",
        PRIVATE,
        "It calls `_init_centroids`; a start by weights is tested in tests/cluster/test_seeding.py.",
        "no attribute '_init_centroids'",
    ),
    Reason(
        "cluster/test_k_means.py::test_transform*",
        FLOAT32,
        "It compares distances of float64 samples to 1e-7, which are computed in float32 unless JAX's x64 mode is on.",
        RELATIVE,
    ),
    Reason(
        "cluster/test_k_means.py::test_weighted_vs_repeated*",
        FLOAT32,
        "It compares centers of float64 samples to 1e-7, which are computed in float32 unless JAX's x64 mode is on.",
        RELATIVE,
    ),
    Reason(
        "cluster/test_k_means.py::test_k_means_1_iteration[*",
        FLOAT32,
        "It compares centers of float64 samples to 1e-7, which are computed in float32 unless JAX's x64 mode is on.",
        RELATIVE,
    ),
    Reason(
        "cluster/test_k_means.py::test_dense_sparse[*",
        FLOAT32,
        "It compares centers of dense and sparse float64 samples to 1e-7; both are in float32 unless JAX's x64 is on.",
        RELATIVE,
    ),
    Reason(
        "cluster/test_hdbscan.py::test_hdbscan_sparse[*",
        REFUSAL,
        "It expects that sparse samples are refused with the algorithms of trees, whose labels they get here.",
        "DID NOT RAISE",
    ),
    Reason(
        "cluster/test_hdbscan.py::test_hdbscan_distance_matrix",
        WORDING,
        "A matrix of distances that is not square, or not symmetric, is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_hdbscan.py::test_labelling_distinct[*",
        PRIVATE,
        "It hands `_single_linkage_tree_` to private functions; here the hierarchy is in `single_linkage_tree_`.",
        "no attribute '_single_linkage_tree_'",
    ),
    Reason(
        "cluster/test_hdbscan.py::test_hdbscan_default_copy_warning",
        DEPRECATION,
        "It expects a warning that scikit-learn's default of `copy` will become True; here it is True.",
        "(<class 'FutureWarning'>,)",
    ),
    Reason(
        "cluster/test_spectral.py::test_verbose[kmeans]",
        WORDING,
        "`verbose` prints the steps of the eigensolver and how labels are assigned, but not the steps of k-means.",
        "Initialization complete",
    ),
    Reason(
        "cluster/test_spectral.py::test_spectral_clustering_with_arpack_amg_solvers*",
        REFUSAL,
        "It expects eigen_solver='amg' to be refused without pyamg; here every name stands for the one eigensolver.",
        "DID NOT RAISE",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_precisions_init[*",
        PRIVATE,
        "It calls `_initialize` and `_set_parameters`.",
        "no attribute '_set_parameters'",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_n_parameters",
        PRIVATE,
        "It calls `_n_parameters`; `bic` and `aic` are tested in tests/estimators/test_mixture_estimators.py.",
        "no attribute '_n_parameters'",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_aic_bic",
        PRIVATE,
        "It calls `_n_parameters`; `bic` and `aic` are tested in tests/estimators/test_mixture_estimators.py.",
        "no attribute '_n_parameters'",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_check_*",
        WORDING,
        "A start of the wrong shape is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters*",
        PRIVATE,
        "It counts the calls of a private function.",
        "call_count",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_sample",
        WORDING,
        "`sample(0)` is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_fit_convergence_warning",
        WORDING,
        "The warning that `max_iter` was reached has other words.",
        NO_MATCH,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_regularisation",
        REFUSAL,
        "It expects components without variance to raise; here they end in a ConvergenceWarning that names them.",
        "DID NOT RAISE",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_bic_1d_1component",
        FLOAT32,
        "It compares criteria near 294 to seven decimals; samples are computed in float32 unless JAX's x64 mode is on.",
        SEVEN_DECIMALS,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_score[float32]",
        FLOAT32,
        "`score` averages densities in float64; the test compares it with their average in float32, to seven decimals.",
        SEVEN_DECIMALS,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_precisions_init_diag[float64]",
        FLOAT32,
        "It compares precisions of two fits to 1e-7, which are computed in float32 unless JAX's x64 mode is on.",
        RELATIVE,
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_warm_start[*",
        FLOAT32,
        "It compares precisions of two fits to seven decimals, which are computed in float32 unless JAX's x64 mode is "
        "on.",
        SEVEN_DECIMALS,
    ),
    Reason(
        "mixture/test_bayesian_mixture.py::test_compare_covar_type",
        PRIVATE,
        "It calls `_check_parameters`.",
        "no attribute '_check_parameters'",
    ),
    Reason(
        "mixture/test_bayesian_mixture.py::test_bayesian_mixture_precisions_prior_initialisation",
        WORDING,
        "A prior out of its range is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "mixture/test_bayesian_mixture.py::test_monotonic_likelihood",
        FLOAT32,
        "Near convergence the bound falls by its own rounding, two units in the last place of float32.",
        " >= -",
    ),
    Reason(
        "mixture/test_mixture.py::test_mixture_n_components_greater_than_n_samples_error*",
        WORDING,
        "More components than samples are refused in other words.",
        NO_MATCH,
    ),
)
