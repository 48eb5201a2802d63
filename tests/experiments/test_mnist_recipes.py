"""The recipes reach their published accuracies, and the clipped one clips nothing."""

import pytest
from held import broken, measured

import gradstab as gs
from experiments import mnist_recipes

DIGITS = {"data": "digits", "num_seeds": 1, "batch_size": 100}


@pytest.mark.slow
def test_they_train_when_tiny():
    claims = measured(mnist_recipes, **DIGITS, recipes=("clipped",), epochs=1)
    assert not broken(claims, "clip")


@pytest.mark.slow
def test_a_small_threshold_clips():
    tiny = {"recipes": ("clipped",), "epochs": 1, "threshold": 1e-3}
    claims = measured(mnist_recipes, **DIGITS, **tiny)
    assert broken(claims, "share of steps that clip")


@pytest.mark.slow
def test_the_clipped_recipe_reaches_its_accuracy_and_half_its_rate_does_not():
    try:
        gs.data.load("mnist", may_download=False)
    except FileNotFoundError:
        pytest.skip("needs the files of MNIST")
    settings = {"recipes": ("clipped",), "num_seeds": 1}
    assert not broken(measured(mnist_recipes, **settings))
    slower = measured(mnist_recipes, **settings, learning_rate=0.003)
    assert broken(slower, "epoch 19")
