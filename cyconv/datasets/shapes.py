"""A synthetic data set that needs no files: ten classes of shapes.

Every image is a function of (seed, split, index) alone. Pixels are computed
only by operations that IEEE 754 rounds in the same way everywhere (sums,
products, quotients and square roots, but no sines and no sums over arrays), so
the same seed gives the same bytes on every machine.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integer, check_memory
from ..randomness import SHAPES, random_bits
from .split import Dataset, Split

CLASS_NAMES = ("circle", "square", "triangle", "ring", "cross", "star", "crescent", "bar", "corner", "frame")

# Tangent of half the hatching angle of each class: 0, 36, 72, -36 and -72 degrees, each for two classes.
_HATCHING = np.array([0, 0.325, 0.727, -0.325, -0.727, 0, 0.325, 0.727, -0.325, -0.727], np.float32)

_Floats: TypeAlias = NDArray[np.floating]  # float32
_Range: TypeAlias = tuple[float, float]

_SIZE = 32
_BLOCK = 128  # images drawn at once, few enough to stay in cache
_N_DRAWS = 64  # random numbers per image, apart from the noise

# Variations that make the data set hard, each drawn between two bounds; lengths are in pixels.
_RADIUS = (7.0, 12.0)
_OFFSET = (-5.0, 5.0)  # of the shape from the centre of the image, along each axis
_TILT = (-0.3, 0.3)  # tangent of half the rotation angle of the shape
_CONTRAST = (0.25, 0.7)  # between shape and background in each channel, as a fraction of the full range
_TEXTURE = (0.0, 0.3)  # amplitude of the stripes, as a fraction of the full range
_HATCHING_FREQUENCY = (0.2, 0.35)  # periods per pixel of the stripes within the shape
_HATCHING_TILT = (-0.15, 0.15)  # like _TILT, relative to the hatching angle of the class
_HATCHING_DEPTH = (0.3, 1.0)  # how much of the background shows through
_NOISE = (10.0, 40.0)  # largest absolute value of the noise, in units of pixel values
_STROKES = ((7.0, 0.8), (5.0, 1.2), (1.5, 1.5))  # half length and half width of the distractors


def make_shapes(n_train: int = 10000, n_validation: int = 1000, n_test: int = 2000, seed: int = 0) -> Dataset:
    """Generate the synthetic data set.

    There are ten classes of shapes, hatched in one of five directions. They
    vary in position, size, rotation, colour and contrast, on backgrounds of
    gradients and stripes with distracting strokes and noise. With this data
    set, everything runs without a download; results on it say nothing about
    CIFAR-10.

    Parameters
    ----------
    n_train, n_validation, n_test : int
        Number of images in each split, 1 to 1,000,000.
    seed : int
        Image i of a split depends only on the seed, the split and i, not on
        the number of images.

    Returns
    -------
    Dataset
        uint8 images of shape (n, 3, 32, 32), named "shapes (synthetic)". Every
        ten consecutive images contain each class once, in random order. Images
        and labels are read-only.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or is out of range.

    Examples
    --------
    >>> data = make_shapes(n_train=20, n_validation=10, n_test=10)
    >>> data.train.images.shape, data.name
    ((20, 3, 32, 32), 'shapes (synthetic)')
    """
    given = {"n_train": n_train, "n_validation": n_validation, "n_test": n_test}
    sizes = [check_integer(name, size, 1, 10**6) for name, size in given.items()]
    check_memory("n_train + n_validation + n_test images", sum(sizes) * (3 * _SIZE**2 + 8))
    seed = check_integer("seed", seed)
    train, validation, test = (_make_split(size, seed, split) for split, size in enumerate(sizes))
    return Dataset(train, validation, test, class_names=CLASS_NAMES, name="shapes (synthetic)")


def _make_split(n_images: int, seed: int, split: int) -> Split:
    images = np.empty((n_images, 3, _SIZE, _SIZE), np.uint8)
    labels = np.empty(n_images, np.int64)
    for start in range(0, n_images, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, n_images))
        labels[index] = _labels(index, seed, split)
        images[start : start + len(index)] = _draw(index, labels[index], seed, split)
    images.flags.writeable = labels.flags.writeable = False
    return Split(images, labels)


def _labels(index: NDArray[np.int64], seed: int, split: int) -> NDArray[np.int64]:
    """Class indices; every ten consecutive images are a random permutation of the ten classes."""
    keys = random_bits(seed, SHAPES, split, 0, (index // 10)[:, None], np.arange(10))
    return np.argsort(keys, axis=1, kind="stable")[np.arange(len(index)), index % 10]


class _Draws:
    """Sequence of uniform float32 numbers of shape (n, 1)."""

    def __init__(self, index: NDArray[np.int64], seed: int, split: int) -> None:
        bits = random_bits(seed, SHAPES, split, 1, index[:, None], np.arange(_N_DRAWS))
        self._numbers = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        self._next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> _Floats:
        number = self._numbers[:, self._next, None]
        self._next += 1
        return np.float32(low) + np.float32(high - low) * number

    def colour(self) -> _Floats:
        return np.stack([self() for _ in range(3)], axis=1)

    def direction(self, low: float = -1.0, high: float = 1.0, centre: _Floats | int = 0) -> tuple[_Floats, _Floats]:
        """(cosine, sine) of a random angle; the tangent of its half lies in centre + low .. centre + high."""
        t = self(low, high) + centre
        scale = 1 / (1 + t * t)
        return (1 - t * t) * scale, 2 * t * scale


def _draw(index: NDArray[np.int64], labels: NDArray[np.int64], seed: int, split: int) -> NDArray[np.uint8]:
    """Draw uint8 images (n, 3, 32, 32)."""
    draws = _Draws(index, seed, split)
    row = np.arange(_SIZE, dtype=np.float32) - np.float32((_SIZE - 1) / 2)
    x, y = np.tile(row, _SIZE), np.repeat(row, _SIZE)
    canvas, middle = _background(draws, x, y)
    for half_length, half_width in _STROKES:
        u, v = _local(draws, x, y, (-15.0, 15.0), (-1.0, 1.0))
        _paint(canvas, _box(u, v, half_length, half_width), draws.colour(), draws(0.4, 1.0))
    sign = np.where(middle < 0.5, np.float32(1), np.float32(-1))
    colour = middle + sign * np.stack([draws(*_CONTRAST) for _ in range(3)], axis=1)
    radius = draws(*_RADIUS)
    u, v = _local(draws, x, y, _OFFSET, _TILT)
    u /= radius
    v /= radius
    distance = np.empty_like(u)
    for label, signed_distance in enumerate(_SIGNED_DISTANCES):
        members = np.flatnonzero(labels == label)
        distance[members] = signed_distance(u[members], v[members])
    distance *= radius
    hatching = _stripes(draws, x, y, _HATCHING_FREQUENCY, _HATCHING_TILT, _HATCHING[labels, None])
    _paint(canvas, distance, colour, 1 - (hatching + np.float32(0.5)) * draws(*_HATCHING_DEPTH))
    canvas *= np.float32(255)
    canvas += _noise(index, seed, split) * draws(*_NOISE)[:, :, None]
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8).reshape(-1, 3, _SIZE, _SIZE)


def _background(draws: _Draws, x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
    """A gradient between two colours with stripes (n, 3, 1024), and the mean of the two colours (n, 3, 1)."""
    first, second = draws.colour(), draws.colour()
    cosine, sine = draws.direction()
    mix = (cosine * x + sine * y) * draws(0.005, 0.025) + draws(0.3, 0.7)
    texture = _stripes(draws, x, y, (0.02, 0.08)) * draws(*_TEXTURE)
    texture += _stripes(draws, x, y, (0.03, 0.12)) * draws(*_TEXTURE)
    canvas = (second - first) * mix[:, None, :]
    canvas += first
    canvas += texture[:, None, :]
    return canvas, np.float32(0.5) * (first + second)


def _stripes(
    draws: _Draws, x: _Floats, y: _Floats, frequency: _Range, tilt: _Range = (-1.0, 1.0), centre: _Floats | int = 0
) -> _Floats:
    """A triangular plane wave in [-0.5, 0.5], with the frequency in periods per pixel."""
    cosine, sine = draws.direction(*tilt, centre)
    per_pixel = draws(*frequency)
    phase = (cosine * per_pixel) * x + (sine * per_pixel) * y
    phase += draws()
    phase -= np.floor(phase)
    wave: _Floats = np.abs(2 * phase - 1)
    return wave - np.float32(0.5)


def _local(draws: _Draws, x: _Floats, y: _Floats, offset: _Range, tilt: _Range) -> tuple[_Floats, _Floats]:
    """Pixel coordinates in a shifted and rotated coordinate system."""
    cosine, sine = draws.direction(*tilt)
    centre_x, centre_y = draws(*offset), draws(*offset)
    u = cosine * x + sine * y
    u -= cosine * centre_x + sine * centre_y
    v = cosine * y - sine * x
    v -= cosine * centre_y - sine * centre_x
    return u, v


def _paint(canvas: _Floats, distance: _Floats, colour: _Floats, opacity: _Floats) -> None:
    """Blend a colour into the pixels inside a shape, where its signed distance is negative."""
    image, pixel = np.nonzero(distance < 0.5)
    cover = np.minimum(np.float32(0.5) - distance[image, pixel], 1)
    cover *= np.broadcast_to(opacity, distance.shape)[image, pixel]
    for channel in range(3):
        below = canvas[image, channel, pixel]
        canvas[image, channel, pixel] = below + (colour[image, channel, 0] - below) * cover


def _noise(index: NDArray[np.int64], seed: int, split: int) -> _Floats:
    """float32 noise in [-1, 1) with a triangular density: the sum of two random bytes per value."""
    n_values = 3 * _SIZE * _SIZE
    words = random_bits(seed, SHAPES, split, 2, index[:, None], np.arange(n_values // 4))
    pairs = words.astype("<u8", copy=False).view(np.uint8).reshape(len(index), 2, 3, -1)
    noise = np.add(pairs[:, 0], pairs[:, 1], dtype=np.float32)
    noise -= np.float32(255)
    noise *= np.float32(1 / 256)
    return noise


# Signed distances (negative inside) to shapes of about unit radius around the
# origin. Some are slightly too small, which is accurate enough for smooth edges.


def _length(u: _Floats, v: _Floats) -> _Floats:
    return np.sqrt(u * u + v * v)


def _box(u: _Floats, v: _Floats, half_width: float, half_height: float) -> _Floats:
    return np.maximum(np.abs(u) - np.float32(half_width), np.abs(v) - np.float32(half_height))


def _circle(u: _Floats, v: _Floats) -> _Floats:
    return _length(u, v) - np.float32(0.85)


def _square(u: _Floats, v: _Floats) -> _Floats:
    return _box(u, v, 0.78, 0.78)


def _triangle(u: _Floats, v: _Floats) -> _Floats:
    return np.maximum(np.abs(u) * np.float32(0.8660254) + v * np.float32(0.5), -v) - np.float32(0.58)


def _ring(u: _Floats, v: _Floats) -> _Floats:
    distance: _Floats = np.abs(_length(u, v) - np.float32(0.75))
    return distance - np.float32(0.22)


def _cross(u: _Floats, v: _Floats) -> _Floats:
    return np.minimum(_box(u, v, 1.0, 0.3), _box(u, v, 0.3, 1.0))


def _star(u: _Floats, v: _Floats) -> _Floats:
    """A five-pointed star: in one tenth of the plane, to which it is reflected, its outline is a straight line."""
    u, v = np.abs(u), v.copy()
    for normal_u, normal_v in ((0.809017, -0.58778525), (-0.809017, -0.58778525)):
        excess = 2 * np.maximum(u * np.float32(normal_u) + v * np.float32(normal_v), 0)
        u -= excess * np.float32(normal_u)
        v -= excess * np.float32(normal_v)
    return np.abs(u) * np.float32(0.8) + (v - np.float32(1.1)) * np.float32(0.42)


def _crescent(u: _Floats, v: _Floats) -> _Floats:
    outer, inner = _length(u, v) - np.float32(0.95), np.float32(0.75) - _length(u - np.float32(0.45), v)
    distance: _Floats = np.maximum(outer, inner)
    return distance


def _bar(u: _Floats, v: _Floats) -> _Floats:
    return _box(u, v, 1.05, 0.4)


def _corner(u: _Floats, v: _Floats) -> _Floats:
    upright = _box(u + np.float32(0.5), v, 0.3, 0.85)
    return np.minimum(upright, _box(u, v + np.float32(0.55), 0.8, 0.3))


def _frame(u: _Floats, v: _Floats) -> _Floats:
    distance: _Floats = np.abs(_box(u, v, 0.66, 0.66))
    return distance - np.float32(0.2)


_SIGNED_DISTANCES = (_circle, _square, _triangle, _ring, _cross, _star, _crescent, _bar, _corner, _frame)
