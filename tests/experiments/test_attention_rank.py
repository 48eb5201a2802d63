"""Random attention matrices have the two largest singular values that theory says."""

import numpy as np
import pytest
from held import broken, measured

from experiments import attention_rank

TINY = {"tokens": (64,), "matrices": 3}


@pytest.mark.slow
def test_the_second_singular_value_ends_where_its_law_says():
    assert not broken(measured(attention_rank, **TINY))


@pytest.mark.slow
def test_queries_and_keys_of_few_dimensions_do_not_follow_the_law():
    assert broken(measured(attention_rank, **TINY, head=4), "s_2")


def test_the_limit_at_half_a_unit_is_known():
    edge, cumulant = attention_rank.limit(0.5)
    assert edge == pytest.approx(1.0659, abs=5e-5)
    assert cumulant == pytest.approx(5.898, abs=5e-4)


def claimed(entries):
    """The claims of matrices whose rows are these entries over their sums."""
    matrices = entries / entries.sum(-1, keepdims=True)
    config = attention_rank.Config(tokens=(128,), matrices=len(entries))
    values = np.linalg.svd(matrices, compute_uv=False)
    return attention_rank.claims(config, {"128": values})


def test_what_is_accepted_tells_exponentials_from_what_they_begin_with():
    logits = 0.5 * np.random.default_rng(0).standard_normal((8, 128, 128))
    assert not broken(claimed(np.exp(logits)))
    assert broken(claimed(1 + logits), "s_2")


def test_a_first_singular_value_below_one_does_not_hold():
    values = np.ones((2, 3)) * [1 - 1e-6, 0.06, 0.01]
    config = attention_rank.Config(tokens=(128,), matrices=2)
    assert broken(attention_rank.claims(config, {"128": values}), "s_1")
