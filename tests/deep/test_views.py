"""Views: properties that all of them have, noise and swaps, and combinations of views."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from view_problems import COLORED, COLORS, IMAGES, KEY, SHAPE, apply_view, shapes

from jaxcluster.deep import nets
from jaxcluster.deep.views import (
    Blur,
    Chain,
    ColorJitter,
    FeatureCorruption,
    Flip,
    GaussianNoise,
    Grayscale,
    Masking,
    Mixup,
    MultiCrop,
    RandomErasing,
    RandomResizedCrop,
    ShiftRotate,
    apply_to_views,
    count_views,
    image_views,
    stack_views,
    table_views,
)
from jaxcluster.sharding import row_mesh

VIEWS = [
    Masking(0.3),
    GaussianNoise(0.3),
    FeatureCorruption(0.5),
    Mixup(0.5),
    ShiftRotate(COLORED, shift=0.2, rotation=20),
    Flip(COLORED),
    RandomResizedCrop(COLORED, (0.2, 0.6)),
    RandomErasing(COLORED, (0.2, 0.6), probability=1.0, value=9.0),
    ColorJitter(COLORED, 0.3, 0.3, 0.3, 0.1),
    Grayscale(COLORED, 0.5),
    Blur(COLORED, probability=1.0),
    Chain(Flip(COLORED), GaussianNoise(0.1)),
]


def type_name(view):
    return type(view).__name__


def copied(view):
    """An equal view, another object."""
    fields = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return Chain(*fields["views"]) if isinstance(view, Chain) else type(view)(**fields)


# Properties of all views


@pytest.mark.parametrize("view", VIEWS, ids=type_name)
def test_views_under_jit_and_vmap_share_programs(view, compiles):
    keys = jax.random.split(KEY, 2)
    first = keys[0]
    both = jnp.stack([COLORS, COLORS + 1])
    spread = jax.jit(jax.vmap(view))(keys, both)
    one_by_one = [apply_view(view, key, x) for key, x in zip(keys, both, strict=True)]
    for x, alone, found in zip(both, one_by_one, spread, strict=True):
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        np.testing.assert_allclose(alone, found, atol=1e-5)
        assert not np.allclose(found, x)
    assert not np.allclose(one_by_one[0], one_by_one[1] - 1, atol=1e-3)  # another key, another change
    with compiles() as compilations:
        again = apply_view(copied(view), first, COLORS)
    assert compilations.count == 0
    np.testing.assert_array_equal(again, one_by_one[0])


@pytest.mark.parametrize("view", VIEWS, ids=type_name)
def test_equal_rows_are_augmented_differently(view):
    # Swaps with equal rows change nothing: every row gets a number of its own added.
    x = jnp.tile(COLORS[:1], (6, 1)) + jnp.arange(6.0)[:, None] * isinstance(view, (FeatureCorruption, Mixup))
    changes = np.asarray(apply_view(view, KEY, x) - x)
    assert len(np.unique(changes.round(4), axis=0)) == (2 if type_name(view) in ("Flip", "Grayscale") else 6)


@pytest.mark.parametrize("view", VIEWS, ids=type_name)
def test_half_precision_is_kept(view):
    assert jax.eval_shape(view, KEY, COLORS.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("view", [view for view in VIEWS if hasattr(view, "image_shape")], ids=type_name)
def test_images_may_come_as_images_of_any_size(view):
    whole = COLORS.reshape(6, *COLORED)
    np.testing.assert_allclose(
        apply_view(view, KEY, whole), apply_view(view, KEY, COLORS).reshape(whole.shape), atol=1e-5
    )
    assert shapes(view, whole[:, :3, :3]) == (6, 3, 3, 3)
    with pytest.raises(ValueError, match=r"rows have 70 columns, .*image_shape=\(5, 7, 3\).* wants 105 columns.*Pass"):
        view(KEY, IMAGES)
    with pytest.raises(ValueError, match=r"rows have the shape \(6, 5, 7, 2\)"):
        view(KEY, IMAGES.reshape(6, *SHAPE))


@pytest.mark.parametrize("view", [VIEWS[0], VIEWS[4]], ids=type_name)
def test_views_work_outside_of_jit(view):
    np.testing.assert_allclose(view(KEY, COLORS), apply_view(view, KEY, COLORS), atol=1e-5)


@pytest.mark.parametrize(
    "view",
    [
        Masking(0.0),
        GaussianNoise(0.0),
        FeatureCorruption(0.0),
        Mixup(0.0),
        ShiftRotate(COLORED, shift=0, rotation=0),
        Flip(COLORED, 0.0),
        RandomErasing(COLORED, probability=0.0),
        ColorJitter(COLORED, 0.0, 0.0),
        Grayscale(COLORED, 0.0),
        Blur(COLORED, probability=0.0),
    ],
    ids=type_name,
)
def test_no_change_is_none(view):
    np.testing.assert_array_equal(apply_view(view, KEY, COLORS), COLORS)


def test_rows_on_two_devices_are_changed_as_on_one():
    views = Chain(FeatureCorruption(0.5), ShiftRotate(COLORED), Blur(COLORED))
    rows = NamedSharding(row_mesh(jax.devices()[:2]), PartitionSpec("rows"))
    spread = apply_view(views, KEY, jax.device_put(COLORS, rows))
    assert len(spread.sharding.device_set) == 2
    np.testing.assert_allclose(spread, apply_view(views, KEY, COLORS), atol=1e-5)


# Noise and swaps


def test_masking_keeps_the_mean_at_its_rate():
    x = jnp.full((400, 100), 3.0)
    for rate in (0.2, 0.5):
        masked = np.asarray(apply_view(Masking(rate), KEY, x))
        np.testing.assert_allclose(np.mean(masked == 0), rate, atol=5 * np.sqrt(rate * (1 - rate) / x.size))
        np.testing.assert_allclose(masked[masked != 0], 3 / (1 - rate), rtol=1e-6)
        np.testing.assert_allclose(masked.mean(), 3, rtol=0.03)
    for rate in (1, -0.1):
        with pytest.raises(ValueError, match=f"rate={rate} must be in \\[0, 1\\)"):
            Masking(rate)


def test_noise_has_its_deviation():
    noise = np.asarray(apply_view(GaussianNoise(0.5), KEY, jnp.ones((300, 100)))) - 1
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.5], atol=0.02)
    with pytest.raises(ValueError, match="deviation=-1 must be at least 0"):
        GaussianNoise(-1)


NUMBERED = jnp.arange(40.0)[:, None] + jnp.arange(50) / 100
"""Row i and column j hold i + j/100."""


def test_swaps_take_values_of_other_rows_at_their_rate():
    for rate in (0.3, 1.0):
        swapped = np.asarray(apply_view(FeatureCorruption(rate), KEY, NUMBERED))
        rows, columns = np.floor(swapped + 1e-3), (swapped % 1) * 100
        np.testing.assert_allclose(columns, np.tile(np.arange(50), (40, 1)), atol=1e-2)
        others = rows != np.arange(40)[:, None]
        np.testing.assert_allclose(others.mean(), rate, atol=0.05)
        # Each of the others about as often, in rows of its own for each column.
        counts = np.bincount(rows[others].astype(int), minlength=40)
        assert counts.min() > 0
        assert counts.max() < 3 * counts.mean()
        assert np.mean(rows[:, 0] == rows[:, 1]) < 1 - rate + 0.2
    np.testing.assert_array_equal(apply_view(FeatureCorruption(1.0), KEY, NUMBERED[:1]), NUMBERED[:1])
    with pytest.raises(ValueError, match=r"rate=1.5 must be in \[0, 1\]: it is the share of entries that are replaced"):
        FeatureCorruption(1.5)


def test_mixing_moves_rows_towards_another():
    x = jax.random.normal(KEY, (12, 6))
    mixed = np.asarray(apply_view(Mixup(0.4), KEY, x), np.float64)
    rows = np.asarray(x, np.float64)
    for i, found in enumerate(mixed):
        directions = np.delete(rows, i, axis=0) - rows[i]
        parts = directions @ (found - rows[i]) / np.sum(directions**2, axis=1)
        errors = np.abs(rows[i] + parts[:, None] * directions - found).max(1)
        assert errors.min() < 1e-5  # on the line to one of the others
        assert 0 <= parts[errors.argmin()] <= 0.4
    np.testing.assert_array_equal(apply_view(Mixup(0.4), KEY, x[:1]), x[:1])
    cube = jax.random.normal(KEY, (4, 3, 2))
    assert shapes(Mixup(0.4), cube) == cube.shape
    with pytest.raises(ValueError, match=r"amount=-1 must be in \[0, 1\]: it is the most of another row"):
        Mixup(-1)


# Views of views


def test_a_chain_is_its_views_each_with_its_key():
    first, second = Flip(SHAPE), GaussianNoise(0.2)
    one, other = jax.random.split(KEY)
    np.testing.assert_allclose(
        apply_view(Chain(first, second), KEY, IMAGES),
        apply_view(second, other, apply_view(first, one, IMAGES)),
        atol=1e-6,
    )
    assert Chain(first, second) == Chain(Flip(SHAPE), GaussianNoise(0.2)) != Chain(second, first)
    assert copy.deepcopy(Chain(first, second)) == Chain(first, second)  # as scikit-learn clones parameters
    for views in ((), (first, 3)):
        with pytest.raises(TypeError, match="Chain takes one view or more"):
            Chain(*views)


def test_large_views_are_first_with_their_own_keys():
    global_view, local_view = GaussianNoise(0.1), RandomResizedCrop(SHAPE, (0.2, 0.4), size=3)
    views = MultiCrop(global_view, local_view, n_global=2, n_local=3)
    found = apply_view(views, KEY, IMAGES)
    keys = jax.random.split(KEY, 5)
    assert [view.shape for view in found] == [(6, 70)] * 2 + [(6, 3, 3, 2)] * 3
    for view, key, single in zip(
        found, keys, (global_view, global_view, local_view, local_view, local_view), strict=True
    ):
        np.testing.assert_allclose(view, apply_view(single, key, IMAGES), atol=1e-5)
    assert shapes(MultiCrop(global_view), IMAGES) == ((6, 70), (6, 70))


def wider(key, x):
    """Three views of each sample, of two shapes."""
    return x, 2 * x, jnp.concatenate([x, x], axis=1)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (None, [(1, 6, 70)]),
        (GaussianNoise(0.1), [(1, 6, 70)]),
        (wider, [(2, 6, 70), (1, 6, 140)]),
        (MultiCrop(GaussianNoise(0.1), Masking(0.2), n_global=2, n_local=1), [(2, 6, 70), (1, 6, 70)]),
    ],
)
def test_views_go_through_a_network_by_shape(views, expected):
    def network(x):
        return jnp.stack([jnp.sum(x, axis=1), x[:, 0]], axis=1)

    stacks = stack_views(views, KEY, IMAGES)
    assert [stack.shape for stack in stacks] == expected
    assert count_views(stacks) == sum(shape[0] for shape in expected)
    expected_views = IMAGES if views is None else views(KEY, IMAGES)
    expected_views = expected_views if isinstance(expected_views, tuple) else (expected_views,)
    found = apply_to_views(network, stacks)
    for one, view in zip(found, expected_views, strict=True):
        np.testing.assert_allclose(one, network(view), rtol=1e-5, atol=1e-5)


def test_what_several_views_refuse():
    view = GaussianNoise()
    for options in ({"n_local": 2}, {"local_view": view}):
        with pytest.raises(ValueError, match="n_local=.* and local_view=.* do not go together"):
            MultiCrop(view, **options)
    with pytest.raises(ValueError, match="n_global=0 must be at least 1"):
        MultiCrop(view, n_global=0)
    with pytest.raises(ValueError, match="n_local=-1 must be at least 1"):
        MultiCrop(view, view, n_local=-1)


# Default views


def kinds(chain):
    return [type(view) for view in chain.views]


def test_usual_views_of_images_suit_their_channels():
    gray, colored = image_views((6, 9), crops=(2, 1)), image_views((6, 9, 3))
    assert kinds(gray.global_view) == kinds(gray.local_view) == [ShiftRotate, RandomResizedCrop, ColorJitter]
    assert kinds(colored.global_view) == [Flip, RandomResizedCrop, ColorJitter, Grayscale]
    assert colored.local_view is None
    assert kinds(image_views((6, 9), flip=True).global_view) == [ShiftRotate, Flip, RandomResizedCrop, ColorJitter]
    assert kinds(image_views((6, 9, 2), flip=False).global_view) == [RandomResizedCrop, ColorJitter]
    crop = image_views((6, 9), crops=(2, 1), scale=(0.3, 0.8)).local_view.views[1]
    assert (crop.scale, crop.size) == ((0.15, 0.3), (3, 5))
    net = nets.ConvNet((6, 9), 2, channels=(2,), rngs=nnx.Rngs(0))

    def coded(key, x):
        return [nnx.clone(net)(view) for view in gray(key, x)]

    rows = jnp.ones((4, 54))
    assert shapes(gray, rows) == ((4, 54), (4, 54), (4, 3, 5, 1))
    assert shapes(coded, rows) == [(4, 2)] * 3
    assert hash(gray) == hash(image_views([6, 9, 1], crops=(2, 1)))


def test_usual_views_of_tables_swap_and_add_noise():
    views = table_views(rate=0.4, deviation=0.2, crops=(2, 2))
    assert views.global_view == Chain(FeatureCorruption(0.4), GaussianNoise(0.2))
    assert views.local_view == Chain(FeatureCorruption(0.7), GaussianNoise(0.2))
    assert shapes(views, NUMBERED) == (NUMBERED.shape,) * 4
    assert table_views().local_view is None
    for make in (lambda: table_views(crops=[2]), lambda: image_views((3, 3), crops=[1, 1, 1])):
        with pytest.raises(ValueError, match=r"crops=.* must be two numbers: of global views and of local ones"):
            make()
    with pytest.raises(ValueError, match="n_global=0 must be at least 1"):
        table_views(crops=(0, 1))
