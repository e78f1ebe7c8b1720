"""A checkpoint is there whole or not at all, comes back to the bit, and says what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.core import checkpoint
from jaxcluster.core.checkpoint import ARRAYS, MANIFEST, Checkpoints, fingerprint

STATE = {
    "weights": [jnp.arange(6, dtype=jnp.float32).reshape(2, 3), jnp.asarray([1.5, -2.25], jnp.bfloat16)],
    "special": jnp.asarray([jnp.nan, jnp.inf, -0.0, 1e-45]),
    "empty": jnp.zeros((0, 3)),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(4), 2),
    "step": jnp.int32(7),
    "on": jnp.asarray([True, False]),
    "host": np.arange(3.0) / 3,
}
LIKE = {
    **{name: jnp.zeros_like(STATE[name]) for name in ("special", "empty", "step", "on")},
    "weights": [jnp.zeros((2, 3)), jnp.zeros(2, jnp.bfloat16)],
    "key": jax.random.key(0),
    "keys": jax.random.split(jax.random.key(0), 2),
    "host": np.zeros(3),
}
PROGRESS = {"history": [{"loss": 0.1, "epoch": 1}], "status": None, "far": float("inf")}
CONFIG = {"rate": 0.1, "widths": (3, 2), "name": "é"}


def bits(tree):
    """Type, dtype, shape and bytes of every leaf."""

    def of(leaf):
        data = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return isinstance(leaf, jax.Array), str(leaf.dtype), leaf.shape, np.asarray(data).tobytes()

    return jax.tree.map(of, tree)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with one checkpoint, for tests to copy."""
    folder = tmp_path_factory.mktemp("checkpoints")
    Checkpoints(folder, config=CONFIG).save(4, STATE, PROGRESS)
    return folder


@pytest.fixture
def saved(written, tmp_path):
    """Checkpoints of a folder of their own, which holds one."""
    shutil.copytree(written, tmp_path / "run")
    return Checkpoints(tmp_path / "run", config=CONFIG)


def newest(checkpoints):
    return max(checkpoints.folder.glob("checkpoint-*"))


def rewrite(checkpoints, change):
    """Changes the manifest and seals it again, as another version would have written it."""
    file = newest(checkpoints) / MANIFEST
    content = json.loads(file.read_text())
    del content["sha256"]
    change(content)
    file.write_text(checkpoint._seal(content))


def test_any_state_comes_back_to_the_bit(saved):
    found = saved.restore(LIKE)
    assert bits(found.state) == bits(STATE)
    assert found.progress == PROGRESS
    draws = [jax.random.normal(tree["key"]) for tree in (found.state, STATE)]
    assert draws[0] == draws[1]


def test_a_folder_may_be_named_from_where_one_stands(saved, monkeypatch):
    monkeypatch.chdir(saved.folder.parent)
    found = saved._replace(folder=saved.folder.name).restore(LIKE)
    assert bits(found.state) == bits(STATE)


def test_there_is_nothing_to_restore_before_the_first(tmp_path):
    empty = Checkpoints(tmp_path / "none")
    assert not empty.any()
    assert empty.restore(LIKE) is None
    assert not empty.folder.exists()


def test_killed_run_is_ignored_and_cleared(saved):
    left = saved.folder / ".checkpoint-0000000009.0badcafe.new"
    shutil.copytree(newest(saved), left)
    (saved.folder / "history.jsonl").write_text("{}\n")
    assert saved.restore(LIKE).progress == PROGRESS
    assert newest(saved).name == "checkpoint-0000000004"
    saved.save(5, STATE, {"next": True})
    assert not left.exists()
    assert (saved.folder / "history.jsonl").exists()
    assert saved.restore(LIKE).progress == {"next": True}


@pytest.mark.parametrize("broken", ["_write_arrays", "_seal", "replace_dir"])
def test_a_save_that_fails_leaves_what_was_there(saved, monkeypatch, broken):
    def fail(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, broken, fail)
        for number in (4, 5):
            with pytest.raises(OSError, match="no space"):
                saved.save(number, LIKE, {})
    assert [path.name for path in saved.folder.iterdir()] == ["checkpoint-0000000004"]
    assert bits(saved.restore(LIKE).state) == bits(STATE)


def test_a_full_disk_is_an_error_of_the_system(saved, monkeypatch, capfd):
    class Full(contextlib.AbstractContextManager):
        """Writer of Orbax, whose library reports a full disk by a ValueError."""

        def save(self, *_):
            logging.getLogger("absl").error("Traceback of many lines")
            raise ValueError('RESOURCE_EXHAUSTED: Error writing "8/0" [No space left on device]\nmore')

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(checkpoint, "_checkpointer", Full)
    with pytest.raises(OSError, match=r"No space left on device: .*arrays'$") as error:
        saved.save(9, STATE, {})
    assert error.value.errno == errno.ENOSPC
    assert not capfd.readouterr().err


def test_the_newest_two_stay(tmp_path):
    state = {"x": jnp.zeros(2)}
    kept = Checkpoints(tmp_path, keep=2)
    for number in (9, 10, 11, 10):
        kept.save(number, state, {"number": number})
    assert sorted(path.name[-2:] for path in tmp_path.iterdir()) == ["10", "11"]
    assert kept.restore(state).progress == {"number": 11}
    one = kept._replace(keep=1)
    one.save(12, state, {})
    assert [path.name[-2:] for path in tmp_path.iterdir()] == ["12"]
    with pytest.raises(ValueError, match="keep=0 must be at least 1"):
        kept._replace(keep=0).save(13, state, {})
    kept.clear()
    assert not kept.any()


def test_flipped_bit_is_found_and_the_file_named(saved):
    files = [path for path in newest(saved).rglob("*") if path.is_file()]
    assert len(files) > 2
    assert any(path.is_relative_to(newest(saved) / ARRAYS) for path in files)
    for file in files:
        whole = file.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            for bit in (1, 32):
                file.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
                with pytest.raises(ValueError, match="changed since it was written.*SHA-256") as error:
                    saved.restore(LIKE)
                assert str(error.value).startswith(str(file))
                assert f"Delete {newest(saved)}" in str(error.value)
        file.write_bytes(whole)
    assert bits(saved.restore(LIKE).state) == bits(STATE)


def test_every_byte_of_the_manifest_counts(saved):
    file = newest(saved) / MANIFEST
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=f"{MANIFEST} was changed since it was written"):
            saved.restore(LIKE)
    for text in (b"", b"[]", whole[:-1], whole + b" "):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=f"{MANIFEST} was changed since it was written"):
            saved.restore(LIKE)


def test_missing_file_is_named_and_older_one_used(saved):
    saved.save(5, STATE, {})
    for file in [path for path in newest(saved).rglob("*") if path.is_file()]:
        payload = file.read_bytes()
        file.unlink()
        with pytest.raises(ValueError, match="is missing: the checkpoint was copied only in part") as error:
            saved.restore(LIKE)
        assert str(error.value).startswith(str(file))
        file.write_bytes(payload)
    shutil.rmtree(newest(saved))
    assert saved.restore(LIKE).progress == PROGRESS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 0.2}, "rate is 0.1 there and 0.2 here"),
        ({"widths": (3, 1)}, r"widths is \[3, 2\] there and \[3, 1\] here"),
        ({"more": 1}, "more is None there and 1 here"),
    ],
)
def test_another_configuration_is_refused_by_field(saved, change, words):
    with pytest.raises(ValueError, match=f"belongs to another configuration: {words}. Use the same again"):
        saved._replace(config={**CONFIG, **change}).restore(LIKE)


def test_another_model_is_refused_by_its_variable(saved):
    wider = {**LIKE, "weights": [jnp.zeros((2, 4)), LIKE["weights"][1]]}
    with pytest.raises(ValueError, match=r"\['weights'\]\[0\] is float32\[2, 3\] there and float32\[2, 4\] here"):
        saved.restore(wider)
    with pytest.raises(ValueError, match=r"\['step'\] is int32\[\] there and float32\[\] here"):
        saved.restore({**LIKE, "step": jnp.float32(0)})
    with pytest.raises(ValueError, match=r"another model or optimizer: \['bias'\] is not in the checkpoint"):
        saved.restore({**LIKE, "bias": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"\['step'\] is in the checkpoint alone"):
        saved.restore({name: leaf for name, leaf in LIKE.items() if name != "step"})


def test_a_newer_format_asks_for_a_newer_package(saved):
    rewrite(saved, lambda content: content.update(format_version=2))
    with pytest.raises(ValueError, match="format version 2, of a newer jaxcluster. Upgrade it"):
        saved.restore(LIKE)
    rewrite(saved, lambda content: content.update(format="another"))
    with pytest.raises(ValueError, match=f"{MANIFEST} was changed"):
        saved.restore(LIKE)


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": {"['step']": ["a", []]}},
        {"arrays": {"['step']": ["float32", [2**60]]}},
        {"arrays": 7},
        {"progress": "../.."},
        {"files": []},
        {"format_version": "1"},
    ],
)
def test_manifests_of_strangers_are_refused(saved, change):
    def merge(content):
        for name, value in change.items():
            content[name] = content[name] | value if isinstance(value, dict) else value

    rewrite(saved, merge)
    with pytest.raises(ValueError, match="belongs to another model|was changed"):
        saved.restore(LIKE)


def test_parts_of_a_run_have_folders_of_their_own(saved):
    part = saved.within("layer-0")
    part.save(1, {"x": jnp.ones(1)}, {})
    assert saved.restore(LIKE).progress == PROGRESS
    assert part.restore({"x": jnp.zeros(1)}).state["x"] == 1


def test_a_fingerprint_tells_data_sets_apart():
    x = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    first = fingerprint(x)
    assert fingerprint(jnp.asarray(x)) == fingerprint(x.copy(order="F")) == first
    last = x.copy()
    last[-1, 1] += 1e-3
    others = {fingerprint(each) for each in (last, x[:-1], x.reshape(-1, 1), x.astype(np.float64), x[::-1])}
    assert first not in others
    assert len(others) == 5
