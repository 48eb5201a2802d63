"""Which examples are in which batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.data import as_batches, batch_plan, epoch_permutation, steps_per_epoch
from gradstab.data.permutation import permutation

SIZES = {"num_examples": 23, "batch_size": 5}  # four batches and a tail of three


def test_a_permutation_has_every_number_once():
    order = permutation(1000, seed=0)
    assert sorted(order) == list(range(1000))
    assert order.dtype == np.int32


def test_a_permutation_never_changes():
    """From PCG64's raw stream, which NumPy keeps; a change would unmake old runs."""
    assert permutation(6, seed=0).tolist() == [3, 1, 4, 5, 2, 0]
    assert permutation(6, seed=7, stream=2**33).tolist() == [1, 4, 0, 2, 3, 5]


def test_seeds_and_streams_give_different_orders():
    orders = {tuple(permutation(50, seed=s, stream=t)) for s in (0, 1) for t in (0, 1)}
    assert len(orders) == 4


def test_a_permutation_puts_every_number_everywhere():
    num, draws = 8, 4000
    counts = np.zeros((num, num))
    for seed in range(draws):
        counts[np.arange(num), permutation(num, seed=seed)] += 1
    # chi^2 with (n-1)^2 degrees of freedom: mean 49, five sigma is 5 sqrt(98).
    expected = draws / num
    chi2 = np.sum(np.square(counts - expected) / expected)
    assert abs(chi2 - 49) < 5 * np.sqrt(98)


@pytest.mark.parametrize("first_step", [0, 4, 8])
def test_an_epoch_shows_every_example_at_most_once(first_step):
    epoch = batch_plan(0, first_step, 4, **SIZES)
    chex.assert_shape(epoch, (4, 5))
    assert len(set(epoch.ravel())) == 20
    assert set(epoch.ravel()) <= set(range(23))
    assert epoch.dtype == np.int32


def test_without_a_tail_an_epoch_shows_all_examples():
    epoch = batch_plan(0, 6, 3, num_examples=12, batch_size=4)
    assert sorted(epoch.ravel()) == list(range(12))


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 7, 10])
def test_a_resumed_run_sees_the_batches_it_would_have_seen(seed, cut):
    whole = batch_plan(seed, 0, 10, **SIZES)
    before, after = batch_plan(seed, 0, cut, **SIZES), batch_plan(
        seed, cut, 10 - cut, **SIZES
    )  # fmt: skip
    chex.assert_trees_all_equal(np.concatenate([before, after]), whole)


def test_a_plan_that_restarts_its_epochs_would_be_seen():
    """Mutant: resuming with a new epoch at the cut."""
    resumed = batch_plan(0, 6, 4, **SIZES)
    assert (batch_plan(0, 0, 4, **SIZES) != resumed).any()
    assert (batch_plan(0, 4, 4, **SIZES) != resumed).any()


def test_epochs_and_seeds_have_their_own_orders():
    first, second = batch_plan(0, 0, 8, **SIZES).reshape(2, -1)
    assert (first != second).any()
    assert (first != batch_plan(1, 0, 4, **SIZES).ravel()).any()
    dropped = set(range(23)) - set(first), set(range(23)) - set(second)
    assert dropped[0] != dropped[1]


def test_an_epochs_order_is_kept_and_cannot_be_written():
    order = epoch_permutation(0, 2, 23)
    assert epoch_permutation(0, 2, 23) is order
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 1
    batch_plan(0, 8, 1, **SIZES)[0] = 0
    chex.assert_trees_all_equal(batch_plan(0, 8, 1, **SIZES)[0], order[:5])


def test_a_plan_drives_a_scan_over_arrays_on_the_device():
    x = jnp.arange(23.0)
    plan = batch_plan(0, 3, 6, **SIZES)

    @jax.jit
    def sums(plan):
        return jax.lax.scan(lambda c, i: (c, jnp.sum(x[i])), 0, plan)[1]

    # Sums of whole numbers below 2^24 are exact in float32.
    chex.assert_trees_all_equal(sums(plan), plan.sum(axis=1).astype(np.float32))


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_cannot_be_drawn_is_an_error(batch_size):
    with pytest.raises(ValueError, match=f"batch of {batch_size} .* from 23 training"):
        batch_plan(0, 0, 1, num_examples=23, batch_size=batch_size)
    with pytest.raises(ValueError, match="from 1 to that number"):
        steps_per_epoch(23, batch_size)


def test_steps_before_the_first_are_an_error():
    with pytest.raises(ValueError, match="first_step=-1"):
        batch_plan(0, -1, 3, **SIZES)


class Tensor:
    """What other libraries' tensors have in common."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return np.asarray(self.values, dtype)


X, Y = np.ones((4, 3), np.float32), np.arange(4)
KINDS = {
    "numpy": (X, Y),
    "jax": (jnp.asarray(X), jnp.asarray(Y)),
    "tensor": (Tensor(X), Tensor(Y)),
    "list": [X.tolist(), Y.tolist()],
}


@pytest.mark.parametrize("pair", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("container", [list, iter], ids=["list", "iterator"])
def test_batches_of_every_kind_become_numpy_arrays(container, pair):
    batches = list(as_batches(container([pair, pair])))
    assert len(batches) == 2
    for x, y in batches:
        chex.assert_trees_all_equal((x, y), (X, Y.astype(np.int32)))
        assert type(x) is type(y) is np.ndarray


def test_narrow_types_stay_and_wide_ones_are_halved():
    for given, kept in [
        ("float64", "float32"), ("float32", "float32"), ("float16", "float16"),
        ("int64", "int32"), ("uint64", "uint32"), ("uint8", "uint8"), ("bool", "bool"),
    ]:  # fmt: skip
        [(x, _)] = as_batches([(np.ones((4, 2), given), Y)])
        assert x.dtype == kept
    [(x, _)] = as_batches([(jnp.ones((4, 2), jnp.bfloat16), Y)])
    assert x.dtype == jnp.bfloat16


def test_batches_are_taken_one_at_a_time():
    def endless():
        while True:
            yield X, Y

    batches = as_batches(endless())
    assert len([next(batches) for _ in range(3)]) == 3


NOT_BATCHES = {
    "a dictionary": ({"image": X, "label": Y}, TypeError, "pair.*got dict"),
    "three things": ((X, Y, Y), TypeError, "got tuple of length 3"),
    "an array": (X, TypeError, "got ndarray"),
    "unequal numbers": ((X, Y[:3]), ValueError, r"\(4, 3\) and \(3,\)"),
    "a scalar target": ((X, 1.0), ValueError, r"leading axis.*\(\)"),
    "words": ((X, ["a", "b", "c", "d"]), TypeError, "y of batch 1 must be numbers"),
    "ragged lists": (([[1], [1, 2]], [0, 1]), TypeError, "x of batch 1 is no array"),
    "a tensor with a gradient": (
        (Tensor(X, RuntimeError("call detach() first")), Y),
        TypeError,
        "x of batch 1 is no array.*detach",
    ),
    "a label beyond 32 bits": ((X, Y + 2**31), ValueError, "y of batch 1.*32 bits"),
    "a smaller batch": ((X[:2], Y[:2]), ValueError, r"\[2, 3\].*\[4, 3\].*drop_last"),
    "another dtype": ((X.astype(int), Y), ValueError, "int32.*float32"),
}


@pytest.mark.parametrize(
    ("pair", "error", "reason"), NOT_BATCHES.values(), ids=NOT_BATCHES.keys()
)
def test_what_is_no_batch_like_the_first_is_named_with_its_index(pair, error, reason):
    batches = as_batches([(X, Y), pair])
    next(batches)
    with pytest.raises(error, match=rf"batch 1.*{reason}|{reason}") as caught:
        next(batches)
    assert "batch 1" in str(caught.value)


def test_what_is_not_iterable_is_an_error_at_once():
    with pytest.raises(TypeError, match=r"iterable of .*got int"):
        as_batches(3)  # pyright: ignore[reportArgumentType]
