"""An option of a model is one row, and one argument of its class."""

import dataclasses
import importlib
import inspect

import pytest

from gradstab import _model_options as options

building = importlib.import_module("gradstab.models.build")

# What is no option: the input's, and where randomness comes from.
NO_OPTIONS = {"self", "in_features", "out_features", "tokens", "rngs"}
# Options that go into the arguments of another name.
PARTS = {"depth", "width", "slope", "norm_momentum", "num_groups", "vocab_size",
         "parametrization", "base_width"}  # fmt: skip


@pytest.mark.parametrize("kind", options.KINDS)
def test_options_and_arguments_of_a_class_are_the_same(kind):
    arguments = inspect.signature(building._CLASSES[kind].__init__).parameters.keys()
    named = {building._OPTION.get(name, name) for name in arguments - NO_OPTIONS}
    own = options.OPTIONS[kind].keys()
    assert named <= own
    assert own - named <= PARTS


def test_a_row_is_all_that_a_new_option_needs(monkeypatch):
    class Model:
        def __init__(self, in_features, out_features, *, depth, gain, rngs):
            self.depth, self.gain = depth, gain

    row = options.Row(float, many=False, defaults={"rnn": 2.0}, within={"most": 9})
    monkeypatch.setitem(options.ROWS, "gain", row)
    monkeypatch.setitem(options.OPTIONS["rnn"], "gain", 2.0)
    monkeypatch.setitem(building._CLASSES, "rnn", Model)
    sizes = {"in_shape": (4, 4), "num_outputs": 2}
    assert building.build("rnn", **sizes).gain == 2
    assert building.build("rnn", gain=3.0, **sizes).gain == 3
    with pytest.raises(ValueError, match="gain must be a number to 9, got 10"):
        building.build("rnn", gain=10.0, **sizes)


def test_every_row_has_a_type_and_kinds_that_there_are():
    fields = {
        field.name
        for group in (options.ModelOptions, options.FurtherOptions)
        for field in dataclasses.fields(group)
    }
    assert options.ROWS.keys() == fields - {"model"}
    for row in options.ROWS.values():
        assert row.kind in (int, float, bool, str)
        assert row.defaults
        assert row.defaults.keys() <= set(options.KINDS)
