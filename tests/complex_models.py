"""Models with complex parameters, data, inputs, outputs and states; all small."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Model(NamedTuple):
    """A model, its inputs, and the names of the layers that it has."""

    apply: Any
    params: Any
    x: Any
    names: tuple[str, ...]
    boundaries: Any = None


def normal(seed, *shape):
    """Standard normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def complex_normal(seed, *shape):
    """Complex numbers whose parts are standard normal."""
    return jax.lax.complex(normal(seed, *shape), normal(seed + 1000, *shape))


def as_complex(x):
    """The numbers as complex ones, also where promotion is strict."""
    return jax.lax.complex(x, jnp.zeros_like(x))


EIGENVALUES = np.array([0.9, 0.7, 0.5]) * np.exp(1j * np.array([0.3, 1.0, 2.0]))


def lru():
    """h = lambda h + B u, y = Re(C h): a linear recurrent unit."""

    def apply(p, x):
        def step(h, u):
            return p["lam"][None] * h + as_complex(u) @ p["B"], None

        start = jnp.zeros((x.shape[0], 3), p["lam"].dtype)
        return (jax.lax.scan(step, start, x.swapaxes(0, 1))[0] @ p["C"]).real

    p = {"lam": jnp.asarray(EIGENVALUES, jnp.complex64)}
    p |= {"B": complex_normal(0, 2, 3), "C": complex_normal(1, 3, 2)}
    return Model(apply, p, normal(2, 4, 6, 2), ("B+lam", "C"))


def rbm():
    """The logarithm of a wave function: sum of log cosh(W v + b) + a v."""

    def log_cosh(z):
        sign = jnp.where(z.real < 0, -1.0, 1.0).astype(z.dtype)
        return z * sign + jnp.log1p(jnp.exp(-2 * sign * z)) - float(np.log(2))

    def apply(p, v):
        v = as_complex(v)
        return jnp.sum(log_cosh(v @ p["W"] + p["b"][None]), -1) + v @ p["a"]

    p = {"W": 0.3 * complex_normal(0, 4, 5), "b": 0.3 * complex_normal(1, 5)}
    p["a"] = 0.3 * complex_normal(2, 4)
    v = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (3, 4)), jnp.float32)
    return Model(apply, p, v, ("W+a",))


def diagonal_ssm():
    """A diagonal state space as a convolution with its kernel, then a product."""

    def kernel(p, length):
        a = jax.lax.complex(-jnp.exp(p["log_decay"]), p["frequency"])
        step = jnp.exp(p["log_step"]).astype(a.dtype)
        powers = jnp.exp((step * a)[:, None] * jnp.arange(length).astype(a.dtype))
        drive = p["C"] * (jnp.exp(step * a) - 1) / a
        return 2 * (drive @ powers).real

    def apply(p, x):
        length = x.shape[1]
        spectrum = jnp.fft.rfft(x, 2 * length, axis=1)
        taps = jnp.fft.rfft(kernel(p, length), 2 * length)
        y = jnp.fft.irfft(spectrum * taps[None, :, None], 2 * length, axis=1)
        y = jax.nn.gelu(y[:, :length] + p["D"] * x)
        return y @ p["mix"]

    p = {"log_decay": normal(0, 3), "frequency": 2 * normal(1, 3)}
    p |= {"log_step": jnp.full((3,), -1.0), "C": complex_normal(2, 3)}
    p |= {"D": jnp.asarray(0.5), "mix": normal(3, 2, 2)}
    names = ("mix",)
    return Model(apply, p, normal(4, 3, 6, 2), names)


def fourier_operator():
    """Two layers that multiply the lowest frequencies with complex matrices."""

    def block(p, x):
        spectrum = jnp.fft.rfft(x, axis=1)
        low = jnp.einsum("bki,kio->bko", spectrum[:, :3], p["spectral"])
        low = jnp.pad(low, ((0, 0), (0, spectrum.shape[1] - 3), (0, 0)))
        return jnp.fft.irfft(low, x.shape[1], axis=1) + x @ p["skip"]

    def apply(p, x):
        x = x @ p["lift"]
        for layer in p["blocks"]:
            x = jax.nn.gelu(block(layer, x))
        return x @ p["out"]

    def make(seed):
        spectral = 0.5 * complex_normal(seed, 3, 3, 3)
        return {"spectral": spectral, "skip": 0.5 * normal(seed + 1, 3, 3)}

    p = {"lift": normal(0, 1, 3), "blocks": [make(1), make(3)], "out": normal(5, 3, 1)}
    names = ("lift", "blocks.0", "blocks.1", "out")
    return Model(apply, p, normal(6, 3, 8, 1), names)


def filtered():
    """All weights are real: the filter is stored as real and imaginary part."""

    def apply(p, x):
        filter_ = jax.lax.complex(p["re"], p["im"])
        return jnp.fft.irfft(jnp.fft.rfft(x @ p["w"]) * filter_[None], 4) @ p["v"]

    p = {"w": normal(0, 4, 4), "re": normal(1, 3), "im": normal(2, 3)}
    p["v"] = normal(3, 4, 2)
    return Model(apply, p, normal(4, 5, 4), ("w", "v"))


def between_layers():
    """Real parameters, complex data between two layers."""

    def apply(p, x):
        z = jnp.fft.fft(x @ p["w"])
        return jnp.abs(z @ as_complex(p["v"]))

    p = {"w": normal(0, 4, 4), "v": normal(1, 4, 3)}
    return Model(apply, p, normal(2, 3, 4), ("w", "v"))


def unitary():
    """Six unitary maps with a rotation that depends on the size of each entry."""

    def apply(p, x):
        z = jax.lax.complex(x, x[:, ::-1])
        for w in p["u"]:
            z = jnp.asarray(np.exp(1j * np.arange(3))[None], z.dtype) * (z @ w)
        return z.real

    keys = range(6)
    u = [jnp.linalg.qr(complex_normal(seed, 3, 3))[0] for seed in keys]
    return Model(apply, {"u": u}, normal(9, 2, 3), tuple(f"u.{i}" for i in keys))


def complex_inputs():
    """Complex inputs, parameters and outputs; the size of an entry is squashed."""

    def apply(p, z):
        z = z @ p["w"]
        z = z / (1 + jnp.abs(z)).astype(z.dtype)
        return jnp.tanh(z @ p["v"] + p["b"][None])

    p = {"w": complex_normal(0, 3, 4), "v": complex_normal(1, 4, 2) / 4}
    p["b"] = complex_normal(2, 2) / 4
    return Model(apply, p, complex_normal(3, 3, 3), ("w", "v"))


def split_relu():
    """A relu of the real and one of the imaginary part, conjugates in between."""

    def relu(z):
        return jax.lax.complex(jax.nn.relu(z.real), jax.nn.relu(z.imag))

    def apply(p, z):
        return jnp.conj(relu(jnp.conj(relu(z @ p["w"])) @ p["v"]))

    p = {"w": complex_normal(0, 3, 4), "v": complex_normal(1, 4, 3)}
    return Model(apply, p, complex_normal(3, 3, 3), ("w", "v"))


def two_states():
    """A recurrence with a complex state and a real one that feed each other."""

    def apply(p, x):
        def step(carry, u):
            h, c = carry
            c = 0.8 * c + 0.2 * jnp.tanh(jnp.abs(h) + u @ p["w"])
            h = p["lam"][None] * h * as_complex(c) + as_complex(u @ p["v"])
            return (h, c), None

        num = x.shape[0]
        start = jnp.zeros((num, 2), p["lam"].dtype), jnp.ones((num, 2), x.dtype)
        (h, c), _ = jax.lax.scan(step, start, x.swapaxes(0, 1))
        return (h @ p["out"]).real + c

    p = {"lam": complex_normal(0, 2), "w": normal(1, 2, 2), "v": normal(2, 2, 2)}
    p["out"] = complex_normal(3, 2, 2)
    return Model(apply, p, normal(4, 3, 5, 2), ("lam+out+2 more",))


def two_streams():
    """A complex and a real stream, cut by boundaries."""

    def apply(p, x):
        z, y = as_complex(x) @ p["a"]["z"], x @ p["a"]["y"]
        z, y = z @ p["b"]["z"], y @ p["b"]["y"]
        return jnp.abs(z) * y

    def both(seed):
        return {"z": complex_normal(seed, 3, 3), "y": normal(seed + 1, 3, 3)}

    p = {"a": both(0), "b": both(2)}
    return Model(apply, p, normal(4, 3, 3), ("a", "b"), boundaries=("a", "b"))


MODELS = (
    *(lru, rbm, diagonal_ssm, fourier_operator, filtered, between_layers, unitary),
    *(complex_inputs, split_relu, two_states, two_streams),
)
