"""Hijax primitives for tests: a function of arrays, and one rule or two.

Only imported where JAX has them.
"""

import jax
from jax.experimental import hijax

# The name changed; what is used here did not.
Base = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive


class Plain(Base):
    """A function without any rule."""

    def __init__(self, f, rule, *avals):
        out = jax.eval_shape(f, *avals)
        self.in_avals = avals
        self.out_aval = jax.tree.map(lambda y: hijax.ShapedArray(y.shape, y.dtype), out)
        self.params = {"f": f, "rule": rule}
        super().__init__()

    def expand(self, *args):
        return self.f(*args)


class WithVJP(Plain):
    """Its rule takes the arguments and a cotangent, and returns a tuple."""

    def vjp_fwd(self, nzs_in, *args):
        return self(*args), args

    def vjp_bwd_retval(self, args, w):
        return self.rule(args, w)


class WithJVP(Plain):
    """Its rule takes the arguments and their tangents."""

    def jvp(self, args, tangents):
        tangents = tuple(map(hijax.instantiate_zeros, tangents))
        return self(*args), self.rule(args, tangents)


class WithBoth(WithVJP):
    """Two rules."""

    def jvp(self, args, tangents):
        return WithJVP(self.f, self.rule[1], *self.in_avals).jvp(args, tangents)

    def vjp_bwd_retval(self, args, w):
        return self.rule[0](args, w)


def of(kind, f, rule):
    """The function that applies a primitive of this kind."""
    return lambda *args: kind(f, rule, *map(jax.typeof, args))(*args)
