"""Where signals leave the range of a dtype, against powers of two."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from report_samples import layer, network, recurrence, report

from gradstab.report.ranges import DTYPES, ranges, ranges_along_time

# The exponent of the smallest normal number, and the largest number.
LOW = {
    "float8_e4m3fn": -6,
    "float8_e5m2": -14,
    "float16": -14,
    "bfloat16": -126,
    "float32": -126,
}
HIGH = {
    "float8_e4m3fn": 448.0,
    "float8_e5m2": 57344.0,
    "float16": 65504.0,
    "bfloat16": 2.0**128 * (1 - 2.0**-8),
    "float32": 2.0**128 * (1 - 2.0**-24),
}
DEPTH = 20
L = np.arange(1.0, DEPTH + 1)
ONE = np.ones(DEPTH)


def found(rms, gradients):
    """By direction and dtype."""
    made = report(network(rms, gradients))
    ends = ranges(made.layers, made.growth)
    assert len(ends) == 2 * len(DTYPES)
    return {(end.direction, end.dtype): end for end in ends}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_signal_that_halves_underflows_after_as_many_layers_as_the_exponent(dtype):
    """2^-l is below 2^-126 from layer 127 on, deep beyond these twenty."""
    ends = found(0.5**L, 2.0 ** (L - DEPTH - 1))
    for direction in ("forward", "backward"):
        end = ends[direction, dtype]
        assert end.depth == 1 - LOW[dtype]
        assert end.end == "underflow"
        assert end.extrapolated == (end.depth > DEPTH)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_signal_that_doubles_overflows_above_the_largest_number(dtype):
    ends = found(2.0**L, 0.5 ** (L - DEPTH - 1))
    for direction in ("forward", "backward"):
        end = ends[direction, dtype]
        assert end.depth == math.floor(math.log2(HIGH[dtype]) + 1e-12) + 1
        assert end.end == "overflow"
        assert end.extrapolated == (end.depth > DEPTH)


def test_the_first_layer_out_of_range_is_named_in_the_direction_of_travel():
    ends = found(0.5**L, 2.0 ** (L - DEPTH - 1))
    # 2^-7 is the first number below 2^-6.
    assert ends["forward", "float8_e4m3fn"].layer == "blocks.6"
    assert ends["backward", "float8_e4m3fn"].layer == "blocks.13"
    assert ends["forward", "float32"].layer == ""


@pytest.mark.parametrize(
    ("rms", "depth"),
    [
        (L**-2.0, 129),  # 128^-2 is 2^-14
        (100 * L**-2.0, 1281),  # 1280 = 10 * 128
        ((L + 3) ** -2.0, 126),
        (np.exp(-np.sqrt(L)), 95),  # (14 ln 2)^2 = 94.17
        (np.exp(-np.sqrt(L + 2)), 93),
    ],
)
def test_bent_laws_are_followed_beyond_the_network(rms, depth):
    end = found(rms, ONE)["forward", "float16"]
    assert (end.depth, end.extrapolated, end.layer) == (depth, True, "")


def test_the_gradient_at_the_input_is_extrapolated_to_deeper_networks():
    """Layers are added at the end that is far from the input, where the law goes on."""
    deeper = np.arange(1.0, 200)
    whole = (deeper / deeper[-1]) ** 2.0  # below 2^-14 within 199 layers: 1 / 128^2
    ends = found(ONE, whole[:DEPTH] / whole[DEPTH - 1])
    end = ends["backward", "float16"]
    assert end.depth == 129  # 129^-2 is the first below 2^-14
    assert end.end == "underflow"


def test_a_signal_that_keeps_its_size_never_leaves():
    for end in found(ONE, ONE).values():
        assert (end.depth, end.end, end.layer) == (math.inf, "", "")
        assert end.extrapolated


def test_a_layer_that_is_cut_off_did_not_underflow():
    ends = found(ONE, np.where(L == 10, 0.0, 1.0))
    assert all(end.layer == "" for end in ends.values())


def test_a_zero_after_a_tiny_gradient_is_underflow():
    ends = found(ONE, np.where(L <= 10, 0.0, np.where(L == 11, 1e-35, 1.0)))
    assert ends["backward", "float32"].layer == "blocks.9"
    assert ends["backward", "float16"].layer == "blocks.10"


def test_an_infinite_signal_has_overflowed():
    ends = found(np.where(L > 7, np.inf, 1.0), ONE)
    end = ends["forward", "float32"]
    assert (end.end, end.layer, end.extrapolated) == ("overflow", "blocks.7", False)


def test_extrapolation_starts_at_the_last_layer_of_the_fit():
    """A head of another scale does not say where the blocks would go."""
    names = [f"blocks.{i}" for i in range(DEPTH)]
    made = report(network(0.5**L, ONE), names=names)
    headed = [*made.layers, *network([1000.0], [1.0])]
    ends = ranges(headed, made.growth, dtypes=["float32"])
    assert ends[0].depth == 127


def test_so_does_that_of_the_gradient_at_the_first_layer_of_the_fit():
    """A stem of another scale does not say where the blocks would go."""
    names = [f"blocks.{i}" for i in range(DEPTH)]
    made = report(network(ONE, 2.0 ** (L - DEPTH - 1)), names=names)
    with_stem = [layer("stem", gradient=1000.0), *made.layers]
    ends = ranges(with_stem, made.growth, dtypes=["float32"])
    assert ends[1].depth == 127


def test_a_depth_beyond_all_numbers_raises_nothing():
    end = found(L**-0.3, ONE)["forward", "bfloat16"]
    assert end.depth > 1e100


def test_time_steps_are_counted_from_where_the_signal_starts():
    steps = np.arange(1.0, 31)
    # Two entries of 0.75 * 2^-l: below 2^-14 at once where 2^-l is not.
    cell = recurrence(0.5**steps, 0.75 * 0.5 ** (31 - steps) * math.sqrt(2))
    ends = ranges_along_time(cell, dtypes=["float16", "float32"])
    assert [(end.direction, end.depth, end.layer) for end in ends] == [
        ("forward", 15, "14"),
        ("forward", 127, ""),
        ("backward", 14, "16"),
        ("backward", 126, ""),
    ]


def test_the_limits_are_those_of_the_dtypes():
    for name in DTYPES:
        assert float(jnp.finfo(name).smallest_normal) == 2.0 ** LOW[name]
        assert float(jnp.finfo(name).max) == HIGH[name]
