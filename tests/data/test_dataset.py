"""The record and its views."""

from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from gradstab.data import Dataset, load
from gradstab.data.dataset import class_entropy
from gradstab.data.digits import stratified_order
from gradstab.data.permutation import permutation


def make_dataset(num=6, shape=(3, 4)):
    """Images whose pixels are all different: their place can be read off them."""
    x = np.arange(num * shape[0] * shape[1], dtype=np.float32).reshape(num, -1)
    y = np.arange(num, dtype=np.int32)
    return Dataset(x, y, x[:2], y[:2], x[2:4], y[2:4], "toy", "classification", num,
                   shape, 1.0, "any of them")  # fmt: skip


@pytest.fixture
def data():
    return make_dataset()


def test_images_and_flat_are_inverse_views(data):
    images = data.images()
    chex.assert_shape(images.x_train, (6, 3, 4, 1))
    assert images.x_train[1, 2, 3, 0] == data.x_train[1, 2 * 4 + 3]
    chex.assert_trees_all_equal(images.flat().x_train, data.x_train)


def holds_rows(sequence, images):
    """Whether step t of each sequence is row t of its image."""
    return all(
        np.array_equal(sequence[:, t], images[:, t, :, 0])
        for t in range(sequence.shape[1])
    )


def test_rows_are_the_rows_of_the_images(data):
    assert holds_rows(data.rows().x_test, data.images().x_test)
    chex.assert_trees_all_equal(data.rows().x_val, data.sequence(3).x_val)


def test_columns_for_rows_are_rejected(data):
    """Mutant: transposed images, of a square so that the shapes agree."""
    square = make_dataset(shape=(4, 4))
    columns = square.rows().x_train.swapaxes(1, 2)
    assert holds_rows(square.rows().x_train, square.images().x_train)
    assert not holds_rows(columns, square.images().x_train)


def test_pixels_come_one_by_one_in_reading_order(data):
    chex.assert_trees_all_equal(data.pixels().x_train[:, :, 0], data.x_train)


@pytest.mark.parametrize(("time_steps", "piece"), [(1, 12), (5, 3), (7, 2), (20, 1)])
def test_pieces_are_the_pixels_then_zeros(data, time_steps, piece):
    x = data.sequence(time_steps).x_train
    chex.assert_shape(x, (6, time_steps, piece))
    unrolled = x.reshape(6, -1)
    chex.assert_trees_all_equal(unrolled[:, :12], data.x_train)
    assert not unrolled[:, 12:].any()


def test_a_hundred_steps_of_784_pixels_are_pieces_of_eight():
    pieces = make_dataset(2, (28, 28)).sequence(100).x_train
    chex.assert_shape(pieces, (2, 100, 8))
    assert pieces[0, 97].any()
    assert not pieces[:, 98:].any()


def test_every_split_is_viewed_and_no_target_is_touched(data):
    view = data.sequence(5)
    assert {len(view.x_train), len(view.x_val), len(view.x_test)} == {6, 2}
    assert view.x_val.shape[1:] == view.x_test.shape[1:] == view.input_shape == (5, 3)
    for split in ("y_train", "y_val", "y_test"):
        assert getattr(view, split) is getattr(data, split)


def test_a_permutation_is_one_order_for_all_images(data):
    shuffled = data.permuted(0)
    order = shuffled.x_train[0].astype(int)  # pixel k of image 0 has the value k
    assert order.tolist() == permutation(12, seed=0).tolist()
    chex.assert_trees_all_equal(shuffled.x_train, data.x_train[:, order])
    chex.assert_trees_all_equal(shuffled.x_val, data.x_val[:, order])
    chex.assert_trees_all_equal(shuffled.x_test, data.x_test[:, order])
    chex.assert_trees_all_equal(
        data.images().permuted(0).flat().x_train, shuffled.x_train
    )


def test_the_seed_of_a_permutation_changes_it(data):
    assert (data.permuted(0).x_train != data.permuted(1).x_train).any()
    chex.assert_trees_all_equal(data.permuted(1).x_train, data.permuted(1).x_train)


def test_a_data_set_without_validation_examples_has_all_views(data):
    bare = replace(data, x_val=data.x_val[:0], y_val=data.y_val[:0])
    chex.assert_shape(bare.images().flat().x_val, (0, 12))
    chex.assert_shape(bare.permuted(0).sequence(5).x_val, (0, 5, 3))


def test_take_keeps_the_first_training_examples_and_all_others(data):
    some = data.take(4)
    chex.assert_trees_all_equal(some.x_train, data.x_train[:4])
    chex.assert_trees_all_equal(some.y_train, data.y_train[:4])
    assert some.x_val is data.x_val


@pytest.mark.parametrize("num_train", [0, -1, 7])
def test_take_says_how_many_there_are(data, num_train):
    with pytest.raises(ValueError, match="toy has 6 training examples"):
        data.take(num_train)


def test_a_view_of_what_is_no_image_says_so(data):
    for view in ("images", "rows", "pixels"):
        with pytest.raises(ValueError, match=rf"{view}\(\) needs images.*\(5, 3\)"):
            getattr(data.sequence(5), view)()
    with pytest.raises(ValueError, match=r"permuted\(\) needs images"):
        data.rows().permuted(0)
    with pytest.raises(ValueError, match=r"sequence\(4\) needs images"):
        data.sequence(5).sequence(4)
    with pytest.raises(ValueError, match="time_steps >= 1, got 0"):
        data.sequence(0)


def test_a_data_set_is_a_pytree_of_its_six_arrays(data):
    assert len(jax.tree.leaves(data)) == 6
    on_device = jax.device_put(data)
    assert isinstance(on_device.x_train, jax.Array)
    assert (on_device.name, on_device.image_shape) == ("toy", (3, 4))
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, on_device), data)


def test_the_entropy_of_equal_classes_is_the_logarithm_of_their_number():
    # Ten terms, each right to a few units in the last place of a number near 0.23.
    assert abs(class_entropy(np.arange(50) % 10) - np.log(10)) < 1e-14
    assert class_entropy(np.zeros(5)) == 0


def test_digits_are_the_embedded_ones_split_without_overlap():
    from sklearn.datasets import load_digits

    data = load("digits")
    x = np.concatenate([data.x_train, data.x_val, data.x_test])
    y = np.concatenate([data.y_train, data.y_val, data.y_test])
    assert [len(s) for s in (data.x_train, data.x_val, data.x_test)] == [1297, 200, 300]
    whole, labels = load_digits(return_X_y=True)
    rows = sorted(map(tuple, np.column_stack([labels, whole])))
    assert sorted(map(tuple, np.column_stack([y, 16 * x]))) == rows
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert (x.min(), x.max()) == (0, 1)


def test_every_split_of_digits_has_its_share_of_every_class():
    data = load("digits")
    splits = (data.y_train, data.y_val, data.y_test)
    totals = np.bincount(np.concatenate(splits))
    for labels in splits:
        share = totals * len(labels) / totals.sum()
        assert (abs(np.bincount(labels, minlength=10) - share) < 1).all()


def test_a_stratified_order_is_random_within_a_class():
    """Mutant: classes interleaved, but each in its old order, writer by writer."""
    labels = np.repeat([0, 1, 2], 20)
    order = stratified_order(labels)
    assert sorted(order) == list(range(60))
    assert [sorted(labels[order[i : i + 3]]) for i in range(0, 60, 3)] == 20 * [
        [0, 1, 2]
    ]
    for label in range(3):
        members = order[labels[order] == label]
        assert (np.diff(members) < 0).any()
    assert (stratified_order(labels, seed=1) != order).any()


def test_a_data_set_is_printed_in_a_line(data):
    assert repr(data) == (
        "<Dataset toy: classification, 6 outputs, 6 training, 2 validation, 2 test "
        "examples of 12>"
    )
    assert "examples of 3x4x1>" in repr(data.images())
    assert "? training" in repr(jax.tree.map(lambda _: None, data))
    jax.jit(lambda tree: repr(tree) and tree)(data)
