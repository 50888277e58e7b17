"""A run's gamma is not ignored where its mode has none."""

import pytest

from cyconv.experiments import Run


@pytest.mark.parametrize("mode", ["cosine", "one_cycle", "constant"])
def test_gamma_is_refused_where_it_would_be_ignored(mode):
    with pytest.raises(ValueError, match="gamma must be 1 unless mode is 'exp_range'"):
        Run("a", mode=mode, gamma=0.5).check()
