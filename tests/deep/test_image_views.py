"""Views of images: shifts, rotations, crops, boxes, colors and blur, against NumPy and SciPy."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from view_problems import COLORED, COLORS, IMAGES, KEY, SHAPE, apply_view, shapes

from jaxcluster.deep.views import (
    Blur,
    ColorJitter,
    Flip,
    Grayscale,
    RandomErasing,
    RandomResizedCrop,
    ShiftRotate,
    image,
)

# Shifts and rotations


def random_shifts(view, n, *, key=KEY):
    """Shifts (pixels) and rotations (radians) that a view draws for n images."""
    move_key, turn_key = jax.random.split(key)
    moves = jax.random.uniform(move_key, (n, 2), minval=-view.shift, maxval=view.shift) * jnp.array(
        view.image_shape[:2]
    )
    return moves, jax.random.uniform(turn_key, (n,), minval=-1, maxval=1) * np.deg2rad(view.rotation)


def test_a_shift_by_whole_pixels_moves_them():
    """The shift is random: its limit is chosen so that it is two pixels up or down for one image."""
    fraction = float(random_shifts(ShiftRotate(SHAPE, shift=0.5, rotation=0), 6)[0][1, 0]) / (0.5 * SHAPE[0])
    view = ShiftRotate(SHAPE, shift=abs(2 / (fraction * SHAPE[0])), rotation=0)
    assert view.shift <= 1
    by = round(float(random_shifts(view, 6)[0][1, 0]))
    assert abs(by) == 2
    columns = jnp.ones((6, *SHAPE)) * jax.random.normal(KEY, (6, SHAPE[0], 1, 1))  # the same all along a row
    shifted = apply_view(view, KEY, columns.reshape(6, -1)).reshape(6, *SHAPE)
    expected = np.asarray(columns)[1][np.clip(np.arange(SHAPE[0]) + by, 0, SHAPE[0] - 1)]
    np.testing.assert_allclose(shifted[1], expected, atol=1e-4)
    assert np.abs(np.asarray(shifted - columns)[0]).max() > 1e-2


def test_a_quarter_turn_turns():
    square = (5, 5, 1)
    fraction = float(random_shifts(ShiftRotate(square, shift=0, rotation=90), 6)[1][0]) / (np.pi / 2)
    view = ShiftRotate(square, shift=0, rotation=abs(90 / fraction))
    sign = np.sign(float(random_shifts(view, 6)[1][0]))
    x = jax.random.normal(KEY, (6, 25))
    turned = np.asarray(apply_view(view, KEY, x)).reshape(6, 5, 5)[0]
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
    np.testing.assert_array_equal(apply_view(Flip(SHAPE, 1.0), KEY, IMAGES), whole[:, :, ::-1].reshape(6, -1))
    many = jnp.tile(IMAGES[:1], (400, 1))
    fraction = np.mean(np.any(np.asarray(apply_view(Flip(SHAPE, 0.3), KEY, many)) != np.asarray(many), axis=1))
    np.testing.assert_allclose(fraction, 0.3, atol=0.1)
    with pytest.raises(ValueError, match=r"probability=2 must be in \[0, 1\]"):
        Flip(SHAPE, 2)


# Boxes


sample_boxes = jax.jit(image.sample_boxes, static_argnums=(1, 2, 3, 4))
cropped = jax.jit(image.crop_and_resize, static_argnums=2)


def test_a_crop_of_the_whole_is_the_identity():
    for view in (RandomResizedCrop(SHAPE, (1, 1)), RandomResizedCrop(SHAPE, (1, 1), (1, 1))):
        np.testing.assert_allclose(apply_view(view, KEY, IMAGES), IMAGES, atol=1e-5)


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
    small = apply_view(RandomResizedCrop((16, 16), (1, 1), size=4), KEY, checkers)
    assert small.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(small, 0.5, atol=0.05)


def test_boxes_lie_within_the_image():
    found = np.asarray(sample_boxes(KEY, 2000, (20, 30), (0.1, 0.5), (0.5, 2.0)), np.float64)
    (top, left), (height, width) = found.T[:2], found.T[2:]
    assert min(top.min(), left.min()) > -1e-4
    assert max((top + height).max() - 20, (left + width).max() - 30) < 1e-4
    fraction, ratio = height * width / 600, width / height
    np.testing.assert_allclose([fraction.min(), fraction.mean(), fraction.max()], [0.1, 0.3, 0.5], atol=0.01)
    assert 0.5 - 1e-4 < ratio.min() < 0.55
    assert 1.9 < ratio.max() < 2 + 1e-4
    np.testing.assert_allclose(np.mean(np.log(ratio)), 0, atol=0.05)
    # Where the image is too narrow for a ratio it gives way, and the share does not.
    height, width = np.asarray(sample_boxes(KEY, 100, (20, 30), (0.9, 0.9), (0.5, 0.5))).T[2:]
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
    erased = np.asarray(apply_view(view, KEY, IMAGES)).reshape(6, *SHAPE)
    kept = np.asarray(IMAGES).reshape(6, *SHAPE)
    for before, after in zip(kept, erased, strict=True):
        covered = np.all(after == 9, axis=2)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert covered.sum() == len(rows) * len(columns) > 0
        assert np.ptp(rows) < len(rows)
        assert np.ptp(columns) < len(columns)
        np.testing.assert_array_equal(after[~covered], before[~covered])
    large = np.asarray(apply_view(RandomErasing((40, 40), (0.2, 0.4), probability=1.0), KEY, jnp.ones((300, 1600))))
    np.testing.assert_allclose(np.mean(large == 0), 0.3, atol=0.02)
    some = np.asarray(apply_view(RandomErasing((40, 40), probability=0.25), KEY, jnp.ones((300, 1600))))
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


# Color and blur


def test_brightness_and_contrast():
    images = np.asarray(IMAGES, np.float64).reshape(6, *SHAPE)
    added = np.asarray(apply_view(ColorJitter(SHAPE, 0.5, 0.0), KEY, IMAGES)).reshape(images.shape) - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1], added.shape), atol=1e-6)
    assert 0.1 < np.abs(added).max() <= 0.5
    shown = np.asarray(apply_view(ColorJitter(SHAPE, 0.0, 0.5), KEY, IMAGES)).reshape(images.shape)
    means = images.mean((1, 2), keepdims=True)
    factors = np.sum((shown - means) * (images - means), (1, 2, 3)) / np.sum((images - means) ** 2, (1, 2, 3))
    np.testing.assert_allclose(shown, means + factors[:, None, None, None] * (images - means), atol=1e-5)
    assert factors.min() >= 0.5
    assert factors.max() <= 1.5
    assert np.ptp(factors) > 0.1


@pytest.mark.parametrize("offset", [0.0, -5.0, 5.0])
def test_saturation_and_hue_of_any_values(offset):
    """An offset of all values does not change the adjustment of a color."""
    images = np.asarray(COLORS, np.float64).reshape(6, *COLORED)
    by = jnp.linspace(-0.4, 0.4, 6).reshape(6, 1, 1, 1)
    shifted = jnp.asarray(images + offset, jnp.float32)
    gray = images @ [0.2989, 0.5870, 0.1140]
    saturated = np.asarray(jax.jit(image.adjust_saturation)(shifted, by)) - offset
    expected = images + np.asarray(by) * (images - gray[..., None])
    np.testing.assert_allclose(saturated, expected, atol=1e-3)
    hues = np.asarray(jax.jit(image.adjust_hue)(shifted, by)) - offset
    for picture, found, turn in zip(images, hues, np.asarray(by).ravel(), strict=True):
        for pixel, other in zip(picture.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            np.testing.assert_allclose(other, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-4)


def test_jitter_is_its_changes_in_order():
    keys = jax.random.split(KEY, 4)
    images = COLORS.reshape(6, *COLORED)
    for key, most, change in zip(keys, (0.3, 0.2, 0.4, 0.1), image.COLOR_CHANGES, strict=True):
        images = change(images, most * jax.random.uniform(key, (6, 1, 1, 1), minval=-1, maxval=1))
    shown = apply_view(ColorJitter(COLORED, 0.3, 0.2, 0.4, 0.1), KEY, COLORS)
    np.testing.assert_allclose(shown, images.reshape(6, -1), atol=1e-6)


def test_gray_is_the_luma_in_all_channels():
    images = np.asarray(COLORS).reshape(6, *COLORED)
    expected = np.repeat((images @ np.array([0.2989, 0.5870, 0.1140], np.float32))[..., None], 3, axis=3)
    np.testing.assert_allclose(apply_view(Grayscale(COLORED, 1.0), KEY, COLORS), expected.reshape(6, -1), atol=1e-5)


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


def test_blur_is_a_gaussian_mean_that_keeps_constants():
    flat = jnp.full((6, 70), 3.0)
    np.testing.assert_allclose(apply_view(Blur(SHAPE, probability=1.0), KEY, flat), flat, rtol=1e-6)
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
