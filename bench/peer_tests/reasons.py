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
SPARSE = "sparse rows (not yet)"
CATEGORIES = (WORDING, PRIVATE, STREAM, SPARSE)


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
        """Whether the pattern names this test."""
        return re.fullmatch(".*".join(map(re.escape, self.tests.split("*"))), test, re.DOTALL) is not None

    def explains(self, test: str, error: str) -> bool:
        """Whether this is the reason of a failure."""
        return self.names(test) and self.error in error


SPARSE_ROWS = "Sparse data was passed for X"
NO_MATCH = "Regex pattern did not match"

REASONS: tuple[Reason, ...] = (
    Reason(
        "cluster/test_k_means.py::*sparse_*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_k_means.py::*X_csr*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_k_means.py::test_predict_does_not_change_cluster_centers[csr_*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_k_means.py::test_relocating_with_duplicates[*-sparse_*",
        SPARSE,
        "Rows as a sparse matrix are refused, inside a block that expects a warning.",
        "DID NOT WARN",
    ),
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
        "cluster/test_k_means.py::test_sample_weight_*",
        PRIVATE,
        "It calls `_init_centroids`; a start by weights is tested in tests/test_seeding.py.",
        "no attribute '_init_centroids'",
    ),
    Reason(
        "cluster/test_bisect_k_means.py::*[*csr_*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_dbscan.py::*[csr_*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_optics.py::*[*csr_*",
        SPARSE,
        "Rows as a sparse matrix are refused.",
        SPARSE_ROWS,
    ),
    Reason(
        "cluster/test_optics.py::test_min_cluster_size_invalid2*",
        WORDING,
        "`min_cluster_size` above the number of rows is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_optics.py::test_minimum_number_of_sample_check",
        WORDING,
        "`min_samples` above the number of rows is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_optics.py::test_bad_extract",
        WORDING,
        "`eps` above `max_eps` is refused in other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_optics.py::test_bad_reachability",
        WORDING,
        "The warning that no row is reached has other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_optics.py::test_min_samples_edge_case*",
        WORDING,
        "The warning that no row is reached has other words.",
        NO_MATCH,
    ),
    Reason(
        "cluster/test_spectral.py::test_affinities*",
        WORDING,
        "The warning of a graph in several parts has other words.",
        NO_MATCH,
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
        "It calls `_n_parameters`; `bic` and `aic` are tested in tests/test_mixture_estimators.py.",
        "no attribute '_n_parameters'",
    ),
    Reason(
        "mixture/test_gaussian_mixture.py::test_gaussian_mixture_aic_bic",
        PRIVATE,
        "It calls `_n_parameters`; `bic` and `aic` are tested in tests/test_mixture_estimators.py.",
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
        "mixture/test_bayesian_mixture.py::test_compare_covar_type",
        PRIVATE,
        "It calls `_check_parameters`.",
        "no attribute '_check_parameters'",
    ),
    Reason(
        "metrics/cluster/test_unsupervised.py::*[*_*]",
        SPARSE,
        "Rows or distances as a sparse matrix are refused.",
        "X has dtype object",
    ),
)
