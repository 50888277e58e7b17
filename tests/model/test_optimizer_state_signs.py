"""A state that no run of AdamW can have reached is refused."""

import pytest

import cyconv


def test_a_negative_average_of_squares_is_refused():
    network = cyconv.Network(filter_size=8, n_filters=2, n_hidden=4, seed=0)
    state = {"optimizer": "AdamW", "n_updates": 1, "exp_avg": network.parameters, "exp_avg_sq": network.parameters}
    with pytest.raises(ValueError, match=r"mapping\['exp_avg_sq'\] must not be negative"):
        network.set_optimizer_state(state)
    assert network.optimizer_state is None
