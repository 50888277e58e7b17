"""How a batch is cut into blocks, and where the workspace's parts lie."""

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


@pytest.mark.parametrize(
    "batch_size, block",
    {1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 10: 5, 20: 10, 30: 5, 32: 8, 64: 8, 100: 10, 101: 9, 1000: 10}.items(),
)
def test_blocks_of_a_small_network(batch_size, block):
    assert plan(4, 10, 50, batch_size)[0]["block"] == block


@pytest.mark.parametrize(
    "architecture, block", [((8, 40, 50), 25), ((4, 40, 50), 25), ((4, 40, 300), 25), ((4, 80, 600), 50)]
)
def test_larger_blocks(architecture, block):
    """Where there are few patches to sum over, or large weights."""
    assert plan(*architecture, 100)[0]["block"] == block


@pytest.mark.parametrize("batch_size", range(1, 300, 6))
def test_two_threads_share_each_batch_evenly(batch_size):
    """The busier one has hardly more than half of the images."""
    for architecture in ((2, 3, 50), (8, 40, 50), (4, 80, 600)):
        block = plan(*architecture, batch_size)[0]["block"]
        n_blocks = -(-batch_size // block)
        assert -(-n_blocks // 2) * block <= 1.16 * -(-batch_size // 2)


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
