"""Data sets by their names."""

import chex
import pytest

from gradstab.data import NAMES, load


def test_digits_need_no_name():
    assert load().name == "digits"


@pytest.mark.parametrize("name", ["MNIST", "cifar10", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(KeyError) as error:
        load(name)
    assert repr(name) in str(error.value)
    for known in NAMES:
        assert known in str(error.value)


EXPECTED = {
    "digits": ("classification", 10, (64,), ()),
    "adding": ("regression", 1, (100, 2), (1,)),
    "copy-memory": ("sequence-classification", 9, (120, 10), (120,)),
    "temporal-order": ("classification", 4, (100, 8), ()),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_data_set_says_what_a_model_of_it_must_give(name):
    data = load(name)
    task, num_outputs, input_shape, target_shape = EXPECTED[name]
    assert (data.name, data.task, data.num_outputs) == (name, task, num_outputs)
    assert data.input_shape == input_shape
    assert data.y_train.shape[1:] == target_shape
    if task == "regression":
        assert target_shape == (num_outputs,)
    else:
        for labels in (data.y_train, data.y_val, data.y_test):
            assert set(labels.ravel()) == set(range(num_outputs))
    assert data.baseline > 0
    assert data.baseline_answer


def test_time_steps_cut_images_and_lengthen_generated_tasks():
    chex.assert_trees_all_equal(load("digits", time_steps=8), load("digits").rows())
    assert load("adding", time_steps=30).input_shape == (30, 2)
    assert load("copy-memory", time_steps=30).input_shape == (50, 10)


def test_num_train_takes_the_first_images():
    chex.assert_trees_all_equal(load("digits", num_train=64), load("digits").take(64))


def test_the_seed_changes_generated_tasks_and_no_images():
    assert (load("adding", seed=0).x_train != load("adding", seed=1).x_train).any()
    chex.assert_trees_all_equal(load("digits", seed=0), load("digits", seed=1))
