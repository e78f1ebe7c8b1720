"""Views: what they change and what they keep, against NumPy where there is a formula."""

from __future__ import annotations

import colorsys
import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from scipy import ndimage

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
    image,
    image_views,
    stack_views,
    table_views,
)
from jaxcluster.sharding import row_mesh

KEY = jax.random.key(2)
SHAPE, COLORED = (5, 7, 2), (5, 7, 3)
IMAGES = jax.random.normal(jax.random.key(3), (6, 70))
COLORS = jax.random.uniform(jax.random.key(4), (6, 105))

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


show = jax.jit(lambda view, key, x: view(key, x), static_argnums=0)
"""What a view makes of rows: in one program, where each of its operations would be compiled alone."""


def shapes(view, x):
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(view, KEY, x))


def named(view):
    return type(view).__name__


def rebuilt(view):
    """An equal view, another object."""
    fields = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return Chain(*fields["views"]) if isinstance(view, Chain) else type(view)(**fields)


# What all keep


@pytest.mark.parametrize("view", VIEWS, ids=named)
def test_views_are_safe_under_jit_and_vmap_and_equal_ones_are_one_program(view, compiles):
    keys = jax.random.split(KEY, 2)
    first = keys[0]
    both = jnp.stack([COLORS, COLORS + 1])
    spread = jax.jit(jax.vmap(view))(keys, both)
    one_by_one = [show(view, key, x) for key, x in zip(keys, both, strict=True)]
    for x, alone, found in zip(both, one_by_one, spread, strict=True):
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        np.testing.assert_allclose(alone, found, atol=1e-5)
        assert not np.allclose(found, x)
    assert not np.allclose(one_by_one[0], one_by_one[1] - 1, atol=1e-3)  # another key, another change
    with compiles() as seen:
        again = show(rebuilt(view), first, COLORS)
    assert seen.count == 0
    np.testing.assert_array_equal(again, one_by_one[0])


@pytest.mark.parametrize("view", VIEWS, ids=named)
def test_rows_that_are_equal_are_changed_each_in_its_own_way(view):
    # Swaps with equal rows change nothing: every row gets a number of its own added.
    x = jnp.tile(COLORS[:1], (6, 1)) + jnp.arange(6.0)[:, None] * isinstance(view, (FeatureCorruption, Mixup))
    changes = np.asarray(show(view, KEY, x) - x)
    assert len(np.unique(changes.round(4), axis=0)) == (2 if named(view) in ("Flip", "Grayscale") else 6)


@pytest.mark.parametrize("view", VIEWS, ids=named)
def test_half_precision_is_kept(view):
    assert jax.eval_shape(view, KEY, COLORS.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("view", [view for view in VIEWS if hasattr(view, "image_shape")], ids=named)
def test_images_may_come_as_images_of_any_size(view):
    whole = COLORS.reshape(6, *COLORED)
    np.testing.assert_allclose(show(view, KEY, whole), show(view, KEY, COLORS).reshape(whole.shape), atol=1e-5)
    assert shapes(view, whole[:, :3, :3]) == (6, 3, 3, 3)
    with pytest.raises(ValueError, match=r"rows have 70 columns, .*image_shape=\(5, 7, 3\).* wants 105 columns.*Pass"):
        view(KEY, IMAGES)
    with pytest.raises(ValueError, match=r"rows have the shape \(6, 5, 7, 2\)"):
        view(KEY, IMAGES.reshape(6, *SHAPE))


@pytest.mark.parametrize("view", [VIEWS[0], VIEWS[4]], ids=named)
def test_views_work_outside_of_jit(view):
    np.testing.assert_allclose(view(KEY, COLORS), show(view, KEY, COLORS), atol=1e-5)


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
    ids=named,
)
def test_no_change_is_none(view):
    np.testing.assert_array_equal(show(view, KEY, COLORS), COLORS)


def test_rows_on_two_devices_are_changed_as_on_one():
    views = Chain(FeatureCorruption(0.5), ShiftRotate(COLORED), Blur(COLORED))
    rows = NamedSharding(row_mesh(jax.devices()[:2]), PartitionSpec("rows"))
    spread = show(views, KEY, jax.device_put(COLORS, rows))
    assert len(spread.sharding.device_set) == 2
    np.testing.assert_allclose(spread, show(views, KEY, COLORS), atol=1e-5)


# Noise and other rows


def test_masking_keeps_the_mean_at_its_rate():
    x = jnp.full((400, 100), 3.0)
    for rate in (0.2, 0.5):
        spoiled = np.asarray(show(Masking(rate), KEY, x))
        np.testing.assert_allclose(np.mean(spoiled == 0), rate, atol=5 * np.sqrt(rate * (1 - rate) / x.size))
        np.testing.assert_allclose(spoiled[spoiled != 0], 3 / (1 - rate), rtol=1e-6)
        np.testing.assert_allclose(spoiled.mean(), 3, rtol=0.03)
    for rate in (1, -0.1):
        with pytest.raises(ValueError, match=f"rate={rate} must be in \\[0, 1\\)"):
            Masking(rate)


def test_noise_has_its_deviation():
    noise = np.asarray(show(GaussianNoise(0.5), KEY, jnp.ones((300, 100)))) - 1
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.5], atol=0.02)
    with pytest.raises(ValueError, match="deviation=-1 must be at least 0"):
        GaussianNoise(-1)


NUMBERED = jnp.arange(40.0)[:, None] + jnp.arange(50) / 100
"""Row i and column j hold i + j/100."""


def test_swaps_take_the_columns_value_of_another_row_at_their_rate():
    for rate in (0.3, 1.0):
        swapped = np.asarray(show(FeatureCorruption(rate), KEY, NUMBERED))
        rows, columns = np.floor(swapped + 1e-3), (swapped % 1) * 100
        np.testing.assert_allclose(columns, np.tile(np.arange(50), (40, 1)), atol=1e-2)
        others = rows != np.arange(40)[:, None]
        np.testing.assert_allclose(others.mean(), rate, atol=0.05)
        # Each of the others about as often, in rows of its own for each column.
        counts = np.bincount(rows[others].astype(int), minlength=40)
        assert counts.min() > 0
        assert counts.max() < 3 * counts.mean()
        assert np.mean(rows[:, 0] == rows[:, 1]) < 1 - rate + 0.2
    np.testing.assert_array_equal(show(FeatureCorruption(1.0), KEY, NUMBERED[:1]), NUMBERED[:1])
    with pytest.raises(ValueError, match=r"rate=1.5 must be in \[0, 1\]: it is the share of entries that are replaced"):
        FeatureCorruption(1.5)


def test_mixing_moves_rows_a_part_of_the_way_to_another():
    x = jax.random.normal(KEY, (12, 6))
    mixed = np.asarray(show(Mixup(0.4), KEY, x), np.float64)
    rows = np.asarray(x, np.float64)
    for i, found in enumerate(mixed):
        ways = np.delete(rows, i, axis=0) - rows[i]
        parts = ways @ (found - rows[i]) / np.sum(ways**2, axis=1)
        errors = np.abs(rows[i] + parts[:, None] * ways - found).max(1)
        assert errors.min() < 1e-5  # on the line to one of the others
        assert 0 <= parts[errors.argmin()] <= 0.4
    np.testing.assert_array_equal(show(Mixup(0.4), KEY, x[:1]), x[:1])
    cube = jax.random.normal(KEY, (4, 3, 2))
    assert shapes(Mixup(0.4), cube) == cube.shape
    with pytest.raises(ValueError, match=r"amount=-1 must be in \[0, 1\]: it is the most of another row"):
        Mixup(-1)


# Moves


def drawn(view, n, *, key=KEY):
    """The moves (pixels) and turns (radians) that a view draws for n images."""
    move_key, turn_key = jax.random.split(key)
    moves = jax.random.uniform(move_key, (n, 2), minval=-view.shift, maxval=view.shift) * jnp.array(
        view.image_shape[:2]
    )
    return moves, jax.random.uniform(turn_key, (n,), minval=-1, maxval=1) * np.deg2rad(view.rotation)


def test_a_shift_by_whole_pixels_moves_them():
    """The amount is drawn: the most it may be is chosen so that for one image it is two pixels up or down."""
    share = float(drawn(ShiftRotate(SHAPE, shift=0.5, rotation=0), 6)[0][1, 0]) / (0.5 * SHAPE[0])
    view = ShiftRotate(SHAPE, shift=abs(2 / (share * SHAPE[0])), rotation=0)
    assert view.shift <= 1
    by = round(float(drawn(view, 6)[0][1, 0]))
    assert abs(by) == 2
    columns = jnp.ones((6, *SHAPE)) * jax.random.normal(KEY, (6, SHAPE[0], 1, 1))  # the same all along a row
    moved = show(view, KEY, columns.reshape(6, -1)).reshape(6, *SHAPE)
    expected = np.asarray(columns)[1][np.clip(np.arange(SHAPE[0]) + by, 0, SHAPE[0] - 1)]
    np.testing.assert_allclose(moved[1], expected, atol=1e-4)
    assert np.abs(np.asarray(moved - columns)[0]).max() > 1e-2


def test_a_quarter_turn_turns():
    square = (5, 5, 1)
    share = float(drawn(ShiftRotate(square, shift=0, rotation=90), 6)[1][0]) / (np.pi / 2)
    view = ShiftRotate(square, shift=0, rotation=abs(90 / share))
    sign = np.sign(float(drawn(view, 6)[1][0]))
    x = jax.random.normal(KEY, (6, 25))
    turned = np.asarray(show(view, KEY, x)).reshape(6, 5, 5)[0]
    np.testing.assert_allclose(turned, np.rot90(np.asarray(x[0]).reshape(5, 5), k=-int(sign)), atol=1e-4)


def test_what_a_view_of_images_refuses():
    with pytest.raises(ValueError, match="shift=1.5 must be in \\[0, 1\\]"):
        ShiftRotate(SHAPE, shift=1.5)
    with pytest.raises(ValueError, match="rotation=-1 must be at least 0"):
        ShiftRotate(SHAPE, rotation=-1)
    with pytest.raises(ValueError, match="a side of image_shape=0 must be at least 1"):
        ShiftRotate((0, 3))
    assert ShiftRotate((5, 7)).image_shape == (5, 7, 1)


def test_flips_mirror_left_and_right():
    whole = np.asarray(IMAGES).reshape(6, *SHAPE)
    np.testing.assert_array_equal(show(Flip(SHAPE, 1.0), KEY, IMAGES), whole[:, :, ::-1].reshape(6, -1))
    many = jnp.tile(IMAGES[:1], (400, 1))
    share = np.mean(np.any(np.asarray(show(Flip(SHAPE, 0.3), KEY, many)) != np.asarray(many), axis=1))
    np.testing.assert_allclose(share, 0.3, atol=0.1)
    with pytest.raises(ValueError, match=r"probability=2 must be in \[0, 1\]"):
        Flip(SHAPE, 2)


# Boxes


drawn_boxes = jax.jit(image.sample_boxes, static_argnums=(1, 2, 3, 4))
cropped = jax.jit(image.crop_and_resize, static_argnums=2)


def test_a_crop_of_the_whole_is_the_identity():
    for view in (RandomResizedCrop(SHAPE, (1, 1)), RandomResizedCrop(SHAPE, (1, 1), (1, 1))):
        np.testing.assert_allclose(show(view, KEY, IMAGES), IMAGES, atol=1e-5)


def test_a_crop_shows_its_box_bilinearly():
    images = np.asarray(IMAGES).reshape(6, *SHAPE)
    box = jnp.tile(jnp.array([1.0, 2.0, 3.0, 4.0]), (6, 1))
    np.testing.assert_allclose(cropped(images, box, (3, 4)), images[:, 1:4, 2:6], atol=1e-5)
    places = [low + (np.arange(to) + 0.5) * span / to - 0.5 for low, span, to in ((1, 3, 6), (2, 4, 5))]
    expected = [
        ndimage.map_coordinates(image[..., channel], np.meshgrid(*places, indexing="ij"), order=1)
        for image in images
        for channel in range(2)
    ]
    found = np.moveaxis(np.asarray(cropped(images, box, (6, 5))), 3, 1).reshape(12, 6, 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_crop_to_fewer_pixels_is_smoothed():
    checkers = jnp.asarray(np.indices((16, 16)).sum(0) % 2, jnp.float32).reshape(1, 256)
    small = show(RandomResizedCrop((16, 16), (1, 1), size=4), KEY, checkers)
    assert small.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(small, 0.5, atol=0.05)


def test_boxes_lie_within_the_image_and_have_their_shares_and_ratios():
    found = np.asarray(drawn_boxes(KEY, 2000, (20, 30), (0.1, 0.5), (0.5, 2.0)), np.float64)
    (top, left), (height, width) = found.T[:2], found.T[2:]
    assert min(top.min(), left.min()) > -1e-4
    assert max((top + height).max() - 20, (left + width).max() - 30) < 1e-4
    share, ratio = height * width / 600, width / height
    np.testing.assert_allclose([share.min(), share.mean(), share.max()], [0.1, 0.3, 0.5], atol=0.01)
    assert 0.5 - 1e-4 < ratio.min() < 0.55
    assert 1.9 < ratio.max() < 2 + 1e-4
    np.testing.assert_allclose(np.mean(np.log(ratio)), 0, atol=0.05)
    # Where the image is too narrow for a ratio it gives way, and the share does not.
    height, width = np.asarray(drawn_boxes(KEY, 100, (20, 30), (0.9, 0.9), (0.5, 0.5))).T[2:]
    np.testing.assert_allclose(height, 20, rtol=1e-5)
    np.testing.assert_allclose(height * width, 540, rtol=1e-5)


def test_a_crop_of_another_size_comes_as_images():
    gray = IMAGES.reshape(-1, 35)
    assert shapes(RandomResizedCrop((5, 7), size=3), gray) == (12, 3, 3, 1)
    view = RandomResizedCrop(SHAPE, size=[3, 4])
    assert view.size == (3, 4)
    assert hash(view) == hash(RandomResizedCrop(list(SHAPE), size=(3, 4)))
    assert shapes(view, IMAGES.reshape(6, *SHAPE)) == (6, 3, 4, 2)


def test_an_erased_box_is_one_box_of_the_value():
    view = RandomErasing(SHAPE, (0.2, 0.4), probability=1.0, value=9.0)
    erased = np.asarray(show(view, KEY, IMAGES)).reshape(6, *SHAPE)
    kept = np.asarray(IMAGES).reshape(6, *SHAPE)
    for before, after in zip(kept, erased, strict=True):
        covered = np.all(after == 9, axis=2)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert covered.sum() == len(rows) * len(columns) > 0
        assert np.ptp(rows) < len(rows)
        assert np.ptp(columns) < len(columns)
        np.testing.assert_array_equal(after[~covered], before[~covered])
    large = np.asarray(show(RandomErasing((40, 40), (0.2, 0.4), probability=1.0), KEY, jnp.ones((300, 1600))))
    np.testing.assert_allclose(np.mean(large == 0), 0.3, atol=0.02)
    some = np.asarray(show(RandomErasing((40, 40), probability=0.25), KEY, jnp.ones((300, 1600))))
    np.testing.assert_allclose(np.mean((some == 0).any(1)), 0.25, atol=0.1)


def test_what_views_of_boxes_refuse():
    for scale in ((0, 1), (0.5, 0.2), (0.5, 1.5), (0.5,)):
        with pytest.raises(ValueError, match=r"scale=.* must be \(least, greatest\) with 0 < least <= greatest <= 1"):
            RandomResizedCrop(SHAPE, scale)
    with pytest.raises(ValueError, match=r"ratio=\(2.0, 1.0\) must be \(least, greatest\)"):
        RandomErasing(SHAPE, ratio=(2, 1))
    with pytest.raises(ValueError, match="a side of size=0 must be at least 1"):
        RandomResizedCrop(SHAPE, size=0)
    with pytest.raises(ValueError, match=r"size=\(1, 2, 3\) must be \(height, width\)"):
        RandomResizedCrop(SHAPE, size=[1, 2, 3])
    with pytest.raises(ValueError, match=r"probability=-0.5 must be in \[0, 1\]"):
        RandomErasing(SHAPE, probability=-0.5)


# Color and focus


def test_brightness_is_added_and_contrast_is_about_the_mean():
    images = np.asarray(IMAGES, np.float64).reshape(6, *SHAPE)
    added = np.asarray(show(ColorJitter(SHAPE, 0.5, 0.0), KEY, IMAGES)).reshape(images.shape) - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1], added.shape), atol=1e-6)
    assert 0.1 < np.abs(added).max() <= 0.5
    shown = np.asarray(show(ColorJitter(SHAPE, 0.0, 0.5), KEY, IMAGES)).reshape(images.shape)
    means = images.mean((1, 2), keepdims=True)
    factors = np.sum((shown - means) * (images - means), (1, 2, 3)) / np.sum((images - means) ** 2, (1, 2, 3))
    np.testing.assert_allclose(shown, means + factors[:, None, None, None] * (images - means), atol=1e-5)
    assert factors.min() >= 0.5
    assert factors.max() <= 1.5
    assert np.ptp(factors) > 0.1


@pytest.mark.parametrize("offset", [0.0, -5.0, 5.0])
def test_saturation_and_hue_of_any_values(offset):
    """Colors that all values of an image are added to stay those colors."""
    images = np.asarray(COLORS, np.float64).reshape(6, *COLORED)
    by = jnp.linspace(-0.4, 0.4, 6).reshape(6, 1, 1, 1)
    moved = jnp.asarray(images + offset, jnp.float32)
    gray = images @ [0.2989, 0.5870, 0.1140]
    saturated = np.asarray(jax.jit(image.adjust_saturation)(moved, by)) - offset
    expected = images + np.asarray(by) * (images - gray[..., None])
    np.testing.assert_allclose(saturated, expected, atol=1e-3)
    hues = np.asarray(jax.jit(image.adjust_hue)(moved, by)) - offset
    for picture, found, turn in zip(images, hues, np.asarray(by).ravel(), strict=True):
        for pixel, other in zip(picture.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            np.testing.assert_allclose(other, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-4)


def test_jitter_is_its_changes_in_order():
    keys = jax.random.split(KEY, 4)
    images = COLORS.reshape(6, *COLORED)
    for key, most, change in zip(keys, (0.3, 0.2, 0.4, 0.1), image.COLOR_CHANGES, strict=True):
        images = change(images, most * jax.random.uniform(key, (6, 1, 1, 1), minval=-1, maxval=1))
    shown = show(ColorJitter(COLORED, 0.3, 0.2, 0.4, 0.1), KEY, COLORS)
    np.testing.assert_allclose(shown, images.reshape(6, -1), atol=1e-6)


def test_gray_is_the_luma_in_all_channels():
    images = np.asarray(COLORS).reshape(6, *COLORED)
    expected = np.repeat((images @ np.array([0.2989, 0.5870, 0.1140], np.float32))[..., None], 3, axis=3)
    np.testing.assert_allclose(show(Grayscale(COLORED, 1.0), KEY, COLORS), expected.reshape(6, -1), atol=1e-5)


def test_what_views_of_color_refuse():
    for options in ({"saturation": 0.1}, {"hue": 0.1}):
        with pytest.raises(ValueError, match=r"saturation and hue are for images of three channels.*has 2. Pass"):
            ColorJitter(SHAPE, **options)
    with pytest.raises(ValueError, match=r"gray is for images of three channels, and image_shape=\(5, 7, 1\) has 1"):
        Grayscale((5, 7))
    with pytest.raises(ValueError, match=r"hue=0.6 must be in \[0, 0.5\]"):
        ColorJitter(COLORED, hue=0.6)
    with pytest.raises(ValueError, match="brightness=-1 must be at least 0"):
        ColorJitter(COLORED, -1)
    for name in ("contrast", "saturation"):
        with pytest.raises(ValueError, match=rf"{name}=1.5 must be in \[0, 1\]"):
            ColorJitter(COLORED, **{name: 1.5})


def test_a_blur_is_a_gaussian_mean_that_keeps_constants():
    flat = jnp.full((6, 70), 3.0)
    np.testing.assert_allclose(show(Blur(SHAPE, probability=1.0), KEY, flat), flat, rtol=1e-6)
    sigma = np.array([0.05, 0.5, 1.0, 1.5, 2.0, 3.0])
    found = jax.jit(image.gaussian_blur)(IMAGES.reshape(6, *SHAPE), jnp.asarray(sigma, jnp.float32))
    for picture, shown, deviation in zip(np.asarray(IMAGES).reshape(6, *SHAPE), found, sigma, strict=True):

        def smoothed(x, deviation=deviation):
            return ndimage.gaussian_filter(x, deviation, mode="constant", axes=(0, 1), truncate=200)

        # What is beyond the edge has no weight: zeros there, and the weights that are left scaled up to 1.
        np.testing.assert_allclose(shown, smoothed(picture) / smoothed(np.ones_like(picture)), atol=1e-4)
    with pytest.raises(ValueError, match=r"sigma=\(0.0, 1.0\) must be \(least, greatest\) with 0 < least"):
        Blur(SHAPE, (0, 1))
    with pytest.raises(ValueError, match=r"probability=2 must be in \[0, 1\]"):
        Blur(SHAPE, probability=2)


# Views of views


def test_a_chain_is_its_views_each_with_its_key():
    first, second = Flip(SHAPE), GaussianNoise(0.2)
    one, other = jax.random.split(KEY)
    np.testing.assert_allclose(
        show(Chain(first, second), KEY, IMAGES), show(second, other, show(first, one, IMAGES)), atol=1e-6
    )
    assert Chain(first, second) == Chain(Flip(SHAPE), GaussianNoise(0.2)) != Chain(second, first)
    assert copy.deepcopy(Chain(first, second)) == Chain(first, second)  # as scikit-learn clones parameters
    for views in ((), (first, 3)):
        with pytest.raises(TypeError, match="Chain takes one view or more"):
            Chain(*views)


def test_several_views_are_the_large_ones_first_with_keys_of_their_own():
    global_view, local_view = GaussianNoise(0.1), RandomResizedCrop(SHAPE, (0.2, 0.4), size=3)
    views = MultiCrop(global_view, local_view, n_global=2, n_local=3)
    found = show(views, KEY, IMAGES)
    keys = jax.random.split(KEY, 5)
    assert [view.shape for view in found] == [(6, 70)] * 2 + [(6, 3, 3, 2)] * 3
    for view, key, made in zip(
        found, keys, (global_view, global_view, local_view, local_view, local_view), strict=True
    ):
        np.testing.assert_allclose(view, show(made, key, IMAGES), atol=1e-5)
    assert shapes(MultiCrop(global_view), IMAGES) == ((6, 70), (6, 70))


def wider(key, x):
    """Three views of each row, two shapes."""
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
def test_views_go_through_a_network_by_shape_and_come_out_in_their_order(views, expected):
    def network(x):
        return jnp.stack([jnp.sum(x, axis=1), x[:, 0]], axis=1)

    stacks = stack_views(views, KEY, IMAGES)
    assert [stack.shape for stack in stacks] == expected
    assert count_views(stacks) == sum(shape[0] for shape in expected)
    seen = IMAGES if views is None else views(KEY, IMAGES)
    seen = seen if isinstance(seen, tuple) else (seen,)
    found = apply_to_views(network, stacks)
    for one, view in zip(found, seen, strict=True):
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


# To begin with


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
    for made in (lambda: table_views(crops=[2]), lambda: image_views((3, 3), crops=[1, 1, 1])):
        with pytest.raises(ValueError, match=r"crops=.* must be two numbers: of global views and of local ones"):
            made()
    with pytest.raises(ValueError, match="n_global=0 must be at least 1"):
        table_views(crops=(0, 1))
