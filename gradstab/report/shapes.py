"""Which shapes the fields of a record have together."""

import numpy as np

# One letter per axis; equal letters are equal lengths. Of a tuple its length.
_AXES = {
    "Estimate": dict.fromkeys(("value", "error", "low", "high"), "e"),
    "Spectrum": {"values": "ek", "errors": "ek"},
    "Layer": {"gradient_norm": "e", "alignment": "a", "gradient_cosines": "cc"},
    "Recurrence": {
        "state_rms": "t",
        "gradient_norms": "te",
        "state_max": "t",
        "state_median": "t",
        "gradient_max": "t",
        "gradient_median": "t",
        "jacobians": "j",
        "jacobian_steps": "j",
        "exponents": "xk",
        "exponents_error": "xk",
        "finite_time_exponents": "ym",
        "finite_time_errors": "ym",
    },
    "Prediction": dict.fromkeys(
        (
            *("sigma_w", "sigma_b", "forward_rms", "forward_error", "forward_z"),
            *("gradient_factor", "measured_gradient_factor", "gradient_error"),
            *("gradient_z", "chi", "names"),
        ),
        "l",
    ),
    "Ensemble": {
        "forward_rms": "sl",
        "gradient_norm": "sl",
        "param_gradient_norm": "sl",
        "mean_square": "sl",
        "forward_rate": "s",
        "backward_rate": "s",
        "names": "l",
    },
    "Report": {"exponents": "ek", "exponent_errors": "ek"},
}


def disagreement(record: object, /) -> tuple[str, str] | None:
    """The first field whose shape is not that of its record, and what is wrong.

    Fields that are None have no shape.

    >>> from gradstab.records import Estimate
    >>> disagreement(Estimate(*(np.zeros(n) for n in (3, 3, 2, 3))))
    ('low', 'expected shape (3,), as of value, got (2,)')
    """
    lengths = {}
    for name, axes in _AXES.get(type(record).__name__, {}).items():
        value = getattr(record, name)
        value = getattr(value, "values", value)  # of an `OverSeeds`
        if value is None:
            continue
        shape = (len(value),) if isinstance(value, tuple) else np.shape(value)
        if len(shape) != len(axes):
            return name, f"expected {len(axes)} axes, got shape {shape}"
        expected = tuple(
            lengths.setdefault(axis, (length, name))
            for axis, length in zip(axes, shape, strict=True)
        )
        right = tuple(length for length, _ in expected)
        if right != shape:
            of = next(
                other for (length, other), n in zip(expected, shape, strict=True)
                if length != n
            )  # fmt: skip
            like = "" if of == name else f", as of {of}"
            return name, f"expected shape {right}{like}, got {shape}"
    return None
