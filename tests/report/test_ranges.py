"""Where signals leave the range of a dtype, against powers of two."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from report_samples import layer, network, recurrence, report

from gradstab.report.ranges import DTYPES, ranges, ranges_along_time

# The exponent of the smallest number that is kept: the smallest subnormal one, half of
# which rounds to zero; where subnormals are flushed, the smallest normal one.
LOW = {
    "float8_e4m3fn": -9,
    "float8_e5m2": -16,
    "float16": -24,
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
    # 2^-10 is the first number below 2^-9: half of it, which rounds to zero.
    assert ends["forward", "float8_e4m3fn"].layer == "blocks.9"
    assert ends["backward", "float8_e4m3fn"].layer == "blocks.10"
    assert ends["forward", "float32"].layer == ""


@pytest.mark.parametrize(
    ("rms", "depth"),
    [
        (L**-2.0, 5793),  # 5792.6^-2 is 2^-25
        (100 * L**-2.0, 57927),
        ((L + 3) ** -2.0, 5790),
        (np.exp(-np.sqrt(L)), 301),  # (25 ln 2)^2 = 300.28
        (np.exp(-np.sqrt(L + 2)), 299),
    ],
)
def test_bent_laws_are_followed_beyond_the_network(rms, depth):
    end = found(rms, ONE)["forward", "float16"]
    assert (end.depth, end.extrapolated, end.layer) == (depth, True, "")


def test_the_gradient_at_the_input_is_extrapolated_to_deeper_networks():
    """Layers are added at the end that is far from the input, where the law goes on."""
    deeper = np.arange(1.0, 6000)
    whole = (deeper / deeper[-1]) ** 2.0  # below 2^-25 within 5999 layers
    ends = found(ONE, whole[:DEPTH] / whole[DEPTH - 1])
    end = ends["backward", "float16"]
    assert end.depth == 5793  # 5793^-2 is the first below 2^-25
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
    # Two entries of 0.75 * 2^-l: below 2^-126 one step before 2^-l.
    cell = recurrence(0.5**steps, 0.75 * 0.5 ** (31 - steps) * math.sqrt(2))
    ends = ranges_along_time(cell, dtypes=["float16", "float32"])
    assert [(end.direction, end.depth, end.layer) for end in ends] == [
        ("forward", 25, "24"),
        ("forward", 127, ""),
        ("backward", 25, "5"),
        ("backward", 126, ""),
    ]


def test_the_largest_entry_overflows_and_the_median_underflows():
    """At a fixed ratio to the root mean square they are late or early by its layers."""
    layers = [
        dataclasses.replace(x, forward_max=8 * x.forward_rms, forward_median=rms / 4)
        for x, rms in zip(network(2.0**L, ONE), 2.0**L, strict=True)
    ]
    end = ranges(layers, report(layers).growth, dtypes=["float16"])[0]
    assert (end.end, end.depth) == ("overflow", 13)
    layers = [
        dataclasses.replace(x, forward_max=8 * x.forward_rms, forward_median=rms / 4)
        for x, rms in zip(network(0.5**L, ONE), 0.5**L, strict=True)
    ]
    end = ranges(layers, report(layers).growth, dtypes=["float16"])[0]
    assert (end.end, end.depth) == ("underflow", 23)
    assert end.extrapolated


def test_the_largest_entry_leaves_the_rest_behind_beyond_the_network():
    """The logarithm of its excess grows like the root of depth: 3 sqrt(36) in all."""
    layers = [
        dataclasses.replace(x, forward_max=x.forward_rms * math.exp(depth**0.5))
        for x, depth in zip(network(1.2**L, ONE), L, strict=True)
    ]
    end = ranges(layers, report(layers).growth, dtypes=["float16"])[0]
    depth = np.arange(1, 100)
    beyond = depth * math.log(1.2) + np.sqrt(depth) > math.log(65504)
    assert end.depth == depth[np.argmax(beyond)]


def test_the_interval_widens_with_the_scatter_of_the_steps():
    walk = np.cumsum(np.random.default_rng(0).normal(0.3, 0.2, DEPTH))
    made = report(network(np.exp(walk), ONE))
    noisy = ranges(made.layers, made.growth, dtypes=["bfloat16"])[0]
    exact = found(np.exp(0.3 * L), ONE)["forward", "bfloat16"]
    assert exact.earliest < exact.depth < exact.latest
    assert exact.latest - exact.earliest < 10
    assert noisy.earliest < noisy.depth < noisy.latest
    assert noisy.latest - noisy.earliest > 3 * (exact.latest - exact.earliest)


def test_a_signal_without_a_law_has_an_interval_that_is_open():
    end = found(ONE * np.exp(0.3 * np.cos(3 * L)), ONE)["forward", "float16"]
    assert end.depth == end.latest == math.inf
    assert 20 < end.earliest < math.inf
    made = report(network([1.0, 2.0], [1.0, 1.0]))
    (end, _) = ranges(made.layers, made.growth, dtypes=["float16"])
    assert (end.earliest, end.latest) == (1, math.inf)


def test_underflow_of_the_analysis_itself_ends_by_the_law():
    """Of entries that are flushed the median of the others says nothing."""
    steps = np.arange(500.0)
    gradients = 0.7 ** steps[::-1]
    lost = np.where(gradients < 1e-37, 0, gradients)
    cell = dataclasses.replace(recurrence(np.ones(500), lost), dtype="float32")
    cell = dataclasses.replace(cell, state_size=1)
    (_, end) = ranges_along_time(cell, dtypes=["float32"])
    expected = 1 + math.ceil(126 * math.log(2) / -math.log(0.7))
    assert (end.end, end.depth) == ("underflow", expected)
    assert end.layer == str(500 - expected)


def test_the_limits_are_those_of_the_dtypes():
    for name in DTYPES:
        limits = jnp.finfo(name)
        flushed = name in ("bfloat16", "float32")
        least = limits.smallest_normal if flushed else limits.smallest_subnormal
        assert float(least) == 2.0 ** LOW[name]
        assert float(limits.max) == HIGH[name]
