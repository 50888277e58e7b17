"""How a batch is cut into blocks, and where the workspace's parts lie."""

import itertools

import pytest

from cyconv.backend import dispatch
from cyconv.backend.layout import DENSE_PANEL, PATCH_PANEL, Layout, as_sizes


def layout_of(filter_size, n_filters, n_hidden):
    sizes = (
        as_sizes(name, value) for name, value in zip(("f", "n_filters", "n_hidden"), (filter_size, n_filters, n_hidden))
    )
    return Layout((3, 32, 32), *sizes, n_classes=10, single_filter=True, single_hidden=True)


def plan(filter_size, n_filters, n_hidden, batch_size, n_threads=2):
    return layout_of(filter_size, n_filters, n_hidden).plan(dispatch.kernels, batch_size, n_threads, 4)


def blocks(architecture, batch_size):
    """How many images each block of a training step has."""
    layout = plan(*architecture, batch_size)[0]
    starts = [i * batch_size // layout["n_blocks"] for i in range(layout["n_blocks"] + 1)]
    sizes = [end - start for start, end in itertools.pairwise(starts)]
    assert 0 < min(sizes) <= max(sizes) == layout["block"] <= 64
    return sizes


def most_images(sizes, n_threads):
    """Those of the busiest of several threads, each of which takes as many neighbouring blocks."""
    per_thread = -(-len(sizes) // n_threads)
    return max(sum(sizes[i : i + per_thread]) for i in range(0, len(sizes), per_thread))


ARCHITECTURES = {
    "A1": (2, 3, 50),
    "A2": (4, 10, 50),
    "A3": (8, 40, 50),
    "A4": (16, 160, 50),
    "A2W": (4, 40, 50),
    "A5": (4, 40, 300),
    "large": (4, 80, 600),
}


@pytest.mark.parametrize(
    "architectures, batch_size, n_threads",
    [
        *((("A1", "A2", "A4", "A2W", "A5"), batch_size, 4) for batch_size in (100, 128, 200, 1000)),
        *((("A1", "A2", "A4", "A2W", "A5"), batch_size, 8) for batch_size in (128, 200, 1000)),
        (("A1", "A2"), 100, 6),
        (("A4", "A2W", "A5"), 100, 8),
    ],
)
def test_threads_have_equal_work(architectures, batch_size, n_threads):
    """The busiest has at most 1.05 times the mean."""
    for name in architectures:
        assert most_images(blocks(ARCHITECTURES[name], batch_size), n_threads) * n_threads <= 1.05 * batch_size


@pytest.mark.parametrize(
    "architecture, sizes", {"A3": {25}, "large": {50}, "A5": {12, 13}, "A4": {12, 13}, "A1": {8, 9}}.items()
)
def test_larger_blocks(architecture, sizes):
    """Where there are few patches to sum over, or large weights."""
    assert set(blocks(ARCHITECTURES[architecture], 100)) == sizes


@pytest.mark.parametrize("batch_size", range(1, 300, 6))
def test_two_threads_share_each_batch_evenly(batch_size):
    """The busier one has hardly more than half of the images."""
    for architecture in ARCHITECTURES.values():
        assert most_images(blocks(architecture, batch_size), 2) <= 1.16 * -(-batch_size // 2)


@pytest.mark.parametrize("batch_size, n_blocks", {1: 1, 3: 2, 10: 2, 20: 2, 32: 4, 50: 6, 64: 8, 128: 16}.items())
def test_small_batches_have_fewer_blocks(batch_size, n_blocks):
    assert len(blocks(ARCHITECTURES["A2"], batch_size)) == n_blocks


@pytest.mark.parametrize("batch_size", [1, 10, 100, 5000])
def test_buffers_exceed_a_cores_cache_and_do_not_overlap(batch_size):
    for architecture in ((2, 3, 50), (16, 160, 50), ((16, 4, 2), (5, 3, 2), (13, 9))):
        layout, _, size = plan(*architecture, batch_size)
        assert 4 * layout["n_buffers"] * layout["buffer_size"] >= 2**21
        assert layout["buffers"] + layout["n_buffers"] * layout["buffer_size"] <= layout["scratch"]
        assert layout["scratch"] + 2 * layout["scratch_size"] == size
        parts = layout["act"] + layout["grad"]
        assert all(part % 16 == 0 and part < layout["buffer_size"] for part in parts)


@pytest.mark.parametrize("filter_size, n_filters", [(2, 3), (4, 10), (4, 40), (8, 7), (16, 160), (16, 3), (32, 201)])
def test_panels_divide_a_matrix_between_two_threads(filter_size, n_filters):
    """Each column once, in one panel or an even number of them, none wider than the kernels' scratch."""
    layout = layout_of(filter_size, n_filters, (50, 300))
    branch, panels = layout.branches[0], {}
    for kind, i, begin, width in layout.tasks():
        if kind in (DENSE_PANEL, PATCH_PANEL):
            panels.setdefault((kind, i), []).append((begin, width))
    widths = {(DENSE_PANEL, i): dense["n_inputs"] for i, dense in enumerate(layout.dense)}
    if not branch["patch_inner"]:
        widths[PATCH_PANEL, 0] = branch["ld_x"]
    assert panels.keys() == widths.keys()
    for key, found in panels.items():
        ends = [begin + width for begin, width in found]
        assert [begin for begin, _ in found] == [0, *ends[:-1]] and ends[-1] == widths[key]
        assert len(found) == 1 or len(found) % 2 == 0
        assert all(64 * width <= dispatch.kernels.dense_scratch_size(1) and width % 16 == 0 for _, width in found)
