"""The generated tasks and their baselines."""

import chex
import numpy as np
import pytest

from gradstab.data import adding_problem, copy_memory, load, temporal_order

TASKS = [adding_problem, copy_memory, temporal_order]
NAMES = ["adding", "copy-memory", "temporal-order"]
SIGMAS = 5  # a sampling error beyond this happens once in two million


def solve_adding(x):
    return np.sum(x[:, :, :1] * x[:, :, 1:], axis=1)


def solve_temporal_order(x):
    counted = x[:, :, 4:6]  # X and Y
    y_in_order = counted[counted.any(axis=2)].reshape(len(x), 2, 2)[:, :, 1]
    return (2 * y_in_order[:, 0] + y_in_order[:, 1]).astype(np.int32)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_function_of_its_seed(task):
    chex.assert_trees_all_equal(task(8, 30, seed=1), task(8, 30, seed=1))
    assert (task(8, 30, seed=1)[0] != task(8, 30, seed=2)[0]).any()


@pytest.mark.parametrize("task", TASKS)
def test_sizes_that_are_too_small_are_named(task):
    with pytest.raises(ValueError, match=rf"{task.__name__} needs .* got num=0"):
        task(0, 30, seed=0)
    with pytest.raises(ValueError, match="time_steps=0"):
        task(5, 0, seed=0)


@pytest.mark.parametrize("time_steps", [2, 3, 50])
def test_adding_marks_one_step_in_each_half_and_asks_for_their_sum(time_steps):
    x, y = adding_problem(200, time_steps, seed=0)
    chex.assert_shape(x, (200, time_steps, 2))
    half = time_steps // 2
    assert set(np.unique(x[:, :, 1])) <= {0, 1}
    assert (x[:, :half, 1].sum(axis=1) == 1).all()
    assert (x[:, half:, 1].sum(axis=1) == 1).all()
    chex.assert_trees_all_equal(y, solve_adding(x))
    assert x.dtype == y.dtype == np.float32


def test_every_step_of_adding_can_be_marked():
    x, _ = adding_problem(2000, 10, seed=0)
    # The expected count is 400 at each step; 5 sigma of a binomial is 90.
    assert (
        abs(x[:, :, 1].sum(axis=0) - 400) < SIGMAS * np.sqrt(2000 * 0.2 * 0.8)
    ).all()


def test_always_answering_one_costs_a_sixth():
    num = 200_000
    _, y = adding_problem(num, 4, seed=3)
    assert load("adding", num_train=1).baseline == 1 / 6
    squared = np.square(y.astype(np.float64) - 1)
    # For the triangular distribution E e^4 = 1/15, so Var e^2 = 1/15 - 1/36.
    error = np.sqrt((1 / 15 - 1 / 36) / num)
    assert abs(squared.mean() - 1 / 6) < SIGMAS * error
    # No other constant does better: the mean is 1 within its sampling error.
    assert abs(y.mean() - 1) < SIGMAS * np.sqrt(1 / 6 / num)


@pytest.mark.parametrize("time_steps", [1, 2, 100])
def test_copy_memory_asks_for_the_first_ten_symbols_at_the_end(time_steps):
    tokens, targets = copy_memory(50, time_steps, seed=0, one_hot=False)
    chex.assert_shape([tokens, targets], (50, time_steps + 20))
    chex.assert_trees_all_equal(tokens[:, :10], targets[:, -10:])
    assert (targets[:, :-10] == 8).all()
    assert set(np.unique(tokens[:, :10])) == set(range(8))
    assert (tokens[:, 10:] == 9).sum() == 50
    # The sign to answer is the last token before the answer.
    assert (tokens[:, -11] == 9).all()
    assert (tokens[:, 10:-11] == 8).all()
    assert (tokens[:, -10:] == 8).all()
    assert tokens.dtype == targets.dtype == np.int32


def test_one_hot_vectors_are_those_of_the_tokens():
    x, targets = copy_memory(5, 7, seed=4)
    tokens, same = copy_memory(5, 7, seed=4, one_hot=False)
    chex.assert_trees_all_equal(x.argmax(axis=2).astype(np.int32), tokens)
    chex.assert_trees_all_equal(targets, same)
    assert (x.sum(axis=2) == 1).all()
    assert x.dtype == np.float32


def memoryless_loss(targets):
    """Cross-entropy of the best answer that knows the step but no input."""
    loss = 0.0
    for step in range(targets.shape[1]):
        _, counts = np.unique(targets[:, step], return_counts=True)
        p = counts / len(targets)
        loss -= np.sum(p * np.log(p))
    return loss / targets.shape[1]


@pytest.mark.parametrize("time_steps", [5, 100])
def test_copy_memory_without_memory_costs_ten_ln_eight_over_the_length(time_steps):
    num = 20_000
    baseline = load("copy-memory", time_steps=time_steps, num_train=10).baseline
    _, targets = copy_memory(num, time_steps, seed=0, one_hot=False)
    # The entropy of a sample of 8 equal classes is low by about 7 / (2 n), relatively
    # 7 / (2 n ln 8); its spread is smaller still (the first order vanishes).
    bias = 7 / (2 * num * np.log(8))
    assert abs(memoryless_loss(targets) / baseline - 1) < 2 * bias


def test_the_baselines_of_copy_memory_are_the_published_ones():
    for time_steps, expected in {100: 0.173287, 200: 0.094520, 500: 0.039989}.items():
        data = load("copy-memory", time_steps=time_steps, num_train=1)
        assert abs(data.baseline - expected) < 5e-7  # the last digit, rounded


@pytest.mark.parametrize("time_steps", [10, 15, 100])
def test_temporal_order_is_read_off_the_two_symbols(time_steps):
    x, y = temporal_order(500, time_steps, seed=0)
    chex.assert_shape(x, (500, time_steps, 8))
    assert (x.sum(axis=2) == 1).all()
    assert (x[:, 0, 6] == 1).all()  # E
    assert (x[:, -1, 7] == 1).all()  # B
    assert (x[:, 1:-1, 6:] == 0).all()
    chex.assert_trees_all_equal(y, solve_temporal_order(x))


def test_the_two_symbols_lie_where_the_paper_has_them():
    x, _ = temporal_order(5000, 100, seed=0)
    steps = np.nonzero(x[:, :, 4:6].any(axis=2))[1].reshape(-1, 2)
    assert sorted(set(steps[:, 0])) == list(range(10, 21))
    assert sorted(set(steps[:, 1])) == list(range(50, 61))


def test_the_four_classes_of_temporal_order_are_equally_frequent():
    _, y = temporal_order(10_000, 10, seed=0)
    assert load("temporal-order", num_train=1).baseline == np.log(4)
    error = np.sqrt(10_000 * 0.25 * 0.75)
    assert (abs(np.bincount(y, minlength=4) - 2500) < SIGMAS * error).all()


def test_a_label_of_the_reversed_order_is_rejected():
    """Mutant: XY and YX exchanged."""
    x, y = temporal_order(100, 20, seed=0)
    exchanged = np.array([0, 2, 1, 3], np.int32)[y]
    assert (solve_temporal_order(x) != exchanged).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_splits_of_a_generated_data_set_are_different_examples(name):
    data = load(name, num_train=1000, time_steps=20)
    assert len(data.x_train) == len(data.x_val) == len(data.x_test) == 1000
    for other in (data.x_val, data.x_test):
        same = (data.x_train == other).reshape(1000, -1).all(axis=1)
        assert not same.any()
    assert (data.x_val != data.x_test).any()


@pytest.mark.parametrize("name", NAMES)
def test_more_training_examples_leave_the_held_out_ones_as_they_are(name):
    few = load(name, num_train=10, time_steps=20)
    many = load(name, num_train=20, time_steps=20)
    assert (len(few.x_train), len(many.x_train)) == (10, 20)
    chex.assert_trees_all_equal(few.x_test, many.x_test)
    chex.assert_trees_all_equal(few.y_val, many.y_val)
