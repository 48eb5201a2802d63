"""Names of layers without what all of them share."""

import numpy as np
import pytest

from gradstab.analysis.selection import select_layers
from gradstab.report.names import shared_prefix, short_names


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["params.vit.embed", "params.vit.head"], "params.vit."),
        (["net/~/linear_0", "net/~/linear_1"], "net/~/"),
        (["net.blocks.0", "net.blocks.1"], "net."),
        (["blocks.0", "blocks.1"], ""),
        (["net", "net.head"], ""),
        (["linear_0", "linear_1"], ""),
        (["net.only"], ""),
        ([], ""),
    ],
)
def test_only_whole_modules_are_cut(names, prefix):
    assert shared_prefix(names) == prefix
    assert [prefix + short for short in short_names(names)] == list(names)


def test_layers_are_chosen_by_either_name():
    names = ["net.stem", "net.blocks.0", "net.blocks.1"]
    for which in (r"blocks\.\d", r"net\.blocks\.\d", ["blocks.0", "net.blocks.1"]):
        np.testing.assert_array_equal(select_layers(names, which), [False, True, True])
    with pytest.raises(KeyError, match="there is no layer 'head'"):
        select_layers(names, ["head"])
