import numpy as np
import pytest

from gradstab.gradcheck.differences.directions import (
    NUM_COTANGENTS,
    NUM_TANGENTS,
    SIGHT,
    directions,
)


@pytest.mark.parametrize("shapes", [[()], [(1,)], [(2, 3), (), (5,)]])
def test_directions_lie_on_the_sphere_of_all_leaves_together(shapes):
    like = [np.zeros(shape, np.float64) for shape in shapes]
    drawn = directions(np.random.default_rng(0), like, num=7)
    assert [d.shape for d in drawn] == [(7, *shape) for shape in shapes]
    squares = sum(np.sum(d.reshape(7, -1) ** 2, axis=1) for d in drawn)
    np.testing.assert_allclose(squares, sum(a.size for a in like), rtol=1e-14)


def test_an_error_of_rank_one_rarely_hides_in_the_table():
    rng = np.random.default_rng(0)
    trials, size = 100_000, 64  # so large that each product is nearly Gaussian

    def hits(num):
        (v,) = directions(rng, [np.zeros(size)], num=num * trials // 10)
        # By rotation invariance one fixed unit vector stands for all.
        return v[:, 0].reshape(-1, num)

    # A tenth of the draws of each factor, all pairs of them: 1e8 tables.
    tangents = np.sort(np.sqrt(np.mean(hits(NUM_TANGENTS) ** 2, axis=1)))
    cotangents = np.sqrt(np.mean(hits(NUM_COTANGENTS) ** 2, axis=1))
    hidden = np.searchsorted(tangents, SIGHT / cotangents) / len(tangents)
    # 2e-5 by the chi-squared quantile; the estimate has a relative error near 0.3.
    assert 0 < np.mean(hidden) < 5e-5


def test_the_table_measures_the_frobenius_norm():
    rng = np.random.default_rng(0)
    error = rng.standard_normal((8, 5))
    (v,) = directions(rng, [np.zeros(5)], num=4000)
    (w,) = directions(rng, [np.zeros(8)], num=4000)
    mean_square = np.mean((w @ error @ v.T) ** 2)
    # 4000 draws on either side: a standard error near sqrt(2 * 2 / 4000) = 3 %.
    np.testing.assert_allclose(mean_square, np.sum(error**2), rtol=0.12)
