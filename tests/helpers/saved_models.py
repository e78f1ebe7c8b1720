"""Helpers for tests of saved models: edited files, and equality of an estimator with its saved and loaded copy."""

from __future__ import annotations

import json

import numpy as np
import scipy.sparse

from jaxcluster.estimators import load, persistence, serialization

FILES = ("model.json", "arrays.safetensors")


def rewrite(folder, change):
    """Edit model.json and renew its checksum, as another version or a forger would."""
    file = folder / "model.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    change(content)
    file.write_text(persistence._to_json(persistence._with_checksum(content)))


def assert_same(one, two):
    """Equality to the bit, dtypes and types included."""
    assert type(one) is type(two)
    if scipy.sparse.issparse(one):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        for part in ("data", "indices", "indptr") if one.format in serialization.COMPRESSED_FORMATS else ():
            assert_same(getattr(one, part), getattr(two, part))
        np.testing.assert_array_equal(one.toarray(), two.toarray())
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for name in one:
            assert_same(one[name], two[name])
    elif isinstance(one, tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    else:
        assert one == two


def saved_and_loaded(estimator, x, folder):
    """Save and load an estimator; all its attributes and its results for x are equal to the bit."""
    estimator.save(folder)
    assert {file.name for file in folder.iterdir()} == set(FILES)
    back = load(folder)
    assert_same(vars(back), vars(estimator))
    assert repr(back) == repr(estimator)
    for method in ("predict", "transform", "score", "predict_proba"):
        if hasattr(estimator, method):
            np.testing.assert_array_equal(getattr(back, method)(x), getattr(estimator, method)(x))
    return back
