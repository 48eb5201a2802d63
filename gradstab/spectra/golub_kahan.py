r"""The largest singular values of a Jacobian that is known by its products only.

Golub-Kahan bidiagonalisation builds orthonormal bases :math:`U_k, V_k` with

.. math:: J V_k = U_k B_k, \qquad
          J^T U_k = V_k B_k^T + \beta_k v_{k+1} e_k^T ,

where :math:`B_k` is upper bidiagonal. A singular triplet :math:`(p, \theta, q)` of
:math:`B_k` gives the approximate triplet :math:`(U_k p, \theta, V_k q)` of :math:`J`.
It violates only the second equation, by :math:`\beta_k |p_k|`, so a singular value of
:math:`J` lies within :math:`\beta_k |p_k| / \sqrt 2` of :math:`\theta`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from gradstab import _tree
from gradstab.records import record
from gradstab.spectra.linear_map import LinearMap


@record
class Triplets:
    """The leading singular values of Jacobians, with bounds and vectors.

    Attributes:
        values: (num, num_values) in descending order.
        bounds: (num, num_values) a singular value lies within this distance of the
            value: the residual of its triplet plus rounding.
        converged: (num,) whether the residual of the largest value met the tolerance;
            False where the cap on the steps was hit or the Jacobian is not finite.
        num_steps: scalar, steps taken: each is one product forward and one backward.
        left: (num, num_vectors, n_out) unit vectors, of arbitrary sign.
        right: (num, num_vectors, n_in) the vectors that the Jacobian maps to them.
    """

    values: jax.Array
    bounds: jax.Array
    converged: jax.Array
    num_steps: jax.Array
    left: jax.Array
    right: jax.Array


@record
class _Bases:
    """The state of the bidiagonalisation after ``step`` steps."""

    left: jax.Array  # (num, max_steps, n_out)
    right: jax.Array  # (num, max_steps + 1, n_in)
    alphas: jax.Array  # (num, max_steps): diagonal of B
    betas: jax.Array  # (num, max_steps): above it
    scale: jax.Array  # (num,): the largest coefficient seen
    step: jax.Array
    done: jax.Array


def golub_kahan(
    num_steps: int = 16,
    *,
    rtol: float = 1e-5,
    max_steps: int = 128,
    num_values: int | None = None,
    num_vectors: int = 0,
):
    r"""Leading singular values by Golub-Kahan bidiagonalisation.

    Both bases are reorthogonalised in full, in two passes (one pass loses orthogonality
    where a vector nearly cancels, and copies of the largest value appear). Where a
    coefficient is no larger than rounding, the Krylov space is exhausted: the
    coefficient is zero and the recursion goes on from a random vector orthogonal to the
    basis. So multiple singular values are all found, and Jacobians that are zero or
    rank-deficient give zeros.

    Args:
        num_steps: steps before the bound is looked at, and between looks.
        rtol: stop when the residual of the largest value is at most this times the
            value, for all examples.
        max_steps: stop after so many steps in any case, and say so in ``converged``.
            With ``max_steps=num_steps`` the bound is not looked at.
        num_values: how many values to return; at most ``num_steps``, the default.
        num_vectors: of how many values the singular vectors are returned.

    Returns:
        ``decompose(linear_map, key)``, which returns `Triplets` of at most
        ``min(linear_map.shape)`` values; ``key`` draws the starting vectors. It
        survives jit and vmap; it accumulates in float32, or in float64 if the map does.
        Values are NaN where a Jacobian is not finite. Cost: two products a step, and
        :math:`O(k^2 (n_{in} + n_{out}))` operations and :math:`O(k (n_{in} + n_{out}))`
        memory per example for k steps: the memory of ``max_steps`` is taken.

    Raises:
        ValueError: if the numbers of steps, values and vectors do not fit together.

    References:
        Golub and Kahan (1965), Calculating the singular values and pseudo-inverse of a
        matrix. Bound: Parlett (1998), The Symmetric Eigenvalue Problem, theorem 4.5.1,
        for the matrix [0 J; J^T 0].

    Examples:
        >>> gains = jnp.array([[3.0, 2.0, 0.0]])
        >>> scaling = LinearMap(lambda v: v * gains, lambda w: w * gains, 1, (3, 3))
        >>> golub_kahan()(scaling, jax.random.key(0)).values.round(4)
        Array([[3., 2., 0.]], dtype=float32)
    """
    num_values = num_steps if num_values is None else num_values
    _validate(num_steps, max_steps, num_values, num_vectors)

    def decompose(linear_map: LinearMap, key, /) -> Triplets:
        most = min(max_steps, *linear_map.shape)
        count = min(num_values, most)
        rounding = roundoff(linear_map) * math.sqrt(max(linear_map.shape))
        # The singular values of B, and the sums of the reorthogonalisation.
        small = 4 * float(jnp.finfo(work_dtype(linear_map)).eps)
        first, spare_u, spare_v = _random_vectors(linear_map, key)
        advance = _step(linear_map, spare_u, spare_v, rounding)

        def look_again(bases):
            return (bases.step < most) & ~jnp.all(bases.done)

        def several(bases):
            stop = jnp.minimum(bases.step + num_steps, most)
            bases = lax.fori_loop(bases.step, stop, advance, bases)
            values, residuals, *_ = _ritz(bases, 1)
            done = residuals[:, 0] <= rtol * values[:, 0]
            return dataclasses.replace(bases, done=done | ~jnp.isfinite(values[:, 0]))

        start = _start(linear_map, first, most)
        bases = lax.while_loop(look_again, several, start)
        values, residuals, p, q = _ritz(bases, count)
        few = min(num_vectors, count)
        return Triplets(
            values=values,
            bounds=residuals + (rounding + small) * values[:, :1],
            converged=residuals[:, 0] <= rtol * values[:, 0],
            num_steps=bases.step,
            left=_combine(p[:, :, :few], bases.left),
            right=_combine(q[:, :, :few], bases.right[:, :-1]),
        )

    return decompose


def two_way(linear_map: LinearMap, /):
    """The products of a map in both directions.

    A map that has a rule for the backward direction only is transposed, so the result
    is the Jacobian that the rule claims.

    Returns:
        ``(matvec, rmatvec)``. `jax.linear_transpose` raises ``NotImplementedError`` if
        the rule contains an operation that has no transpose.
    """
    if linear_map.matvec is not None:
        return linear_map.matvec, linear_map.rmatvec
    cotangent = _vectors(linear_map)[1]
    dtype = jax.eval_shape(linear_map.rmatvec, cotangent).dtype
    transpose = jax.linear_transpose(linear_map.rmatvec, cotangent)
    return (lambda v: transpose(v.astype(dtype))[0]), linear_map.rmatvec


def work_dtype(linear_map: LinearMap, /):
    """The dtype of sums: float32, or float64 if the map computes in it."""
    return _tree.widest(jnp.float32, *_dtypes(linear_map))


def roundoff(linear_map: LinearMap, /) -> float:
    """The unit roundoff of the coarsest arithmetic in which products are computed.

    An error of this times the square root of the longest sum is likely in a product
    (Higham and Mary 2019, A new approach to probabilistic rounding error analysis).
    """
    return max(float(jnp.finfo(dtype).eps) / 2 for dtype in _dtypes(linear_map))


def _dtypes(linear_map):
    forward, backward = two_way(linear_map)
    tangent, cotangent = _vectors(linear_map)
    return (
        jax.eval_shape(forward, tangent).dtype,
        jax.eval_shape(backward, cotangent).dtype,
    )


def _vectors(linear_map):
    n_out, n_in = linear_map.shape
    shapes = (linear_map.num, n_in), (linear_map.num, n_out)
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def _random_vectors(linear_map, key):
    """Two Gaussian cotangents and a tangent, in one draw to compile it once."""
    num, (n_out, n_in) = linear_map.num, linear_map.shape
    shape = (num, 2 * n_out + n_in)
    both = jax.random.normal(key, shape, work_dtype(linear_map))
    return jnp.split(both, [n_out, 2 * n_out], axis=1)


def _start(linear_map, w, most):
    """The bases before the first step, begun from the image of a cotangent.

    The image of a random cotangent has no part in the null space of the Jacobian.
    """
    num, (n_out, n_in) = linear_map.num, linear_map.shape
    dtype = w.dtype
    w = w / _norm(w)[:, None]
    v = linear_map.rmatvec(w).astype(dtype)
    scale = _norm(v)
    v = v / jnp.where(scale > 0, scale, 1)[:, None]
    right = jnp.zeros((num, most + 1, n_in), dtype)
    return _Bases(
        left=jnp.zeros((num, most, n_out), dtype),
        right=right.at[:, 0].set(v),
        alphas=jnp.zeros((num, most), dtype),
        betas=jnp.zeros((num, most), dtype),
        scale=scale,
        step=jnp.array(0),
        done=jnp.zeros(num, bool),
    )


def _step(linear_map, spare_u, spare_v, rounding):
    """The function that takes one step of the bidiagonalisation."""
    forward, backward = two_way(linear_map)

    def advance(step, bases):
        # Cyclic shifts of a random vector are linearly independent.
        new_u, new_v = jnp.roll(spare_u, step, 1), jnp.roll(spare_v, step, 1)
        u = forward(bases.right[:, step])
        u, alpha, scale = _next_vector(u, bases.left, bases.scale, rounding, new_u)
        left = bases.left.at[:, step].set(u)
        v = backward(u)
        v, beta, scale = _next_vector(v, bases.right, scale, rounding, new_v)
        return dataclasses.replace(
            bases,
            left=left,
            right=bases.right.at[:, step + 1].set(v),
            alphas=bases.alphas.at[:, step].set(alpha),
            betas=bases.betas.at[:, step].set(beta),
            scale=scale,
            step=step + 1,
        )

    return advance


def _next_vector(image, basis, scale, rounding, spare):
    """The part of the image outside the basis: its direction and its norm.

    If there is none, the norm is zero and the direction is that of the spare vector.
    """
    rest = _orthogonal(image.astype(basis.dtype), basis)
    norm = _norm(rest)
    scale = jnp.maximum(scale, norm)
    broken = norm <= rounding * scale
    unit = rest / jnp.where(broken, 1, norm)[:, None]

    def fresh(unit):
        other = _orthogonal(spare, basis)
        size = _norm(other)[:, None]
        other = other / jnp.where(size > 0, size, 1)
        return jnp.where(broken[:, None], other, unit)

    unit = lax.cond(jnp.any(broken), fresh, lambda unit: unit, unit)
    return unit, jnp.where(broken, 0, norm), scale


def _orthogonal(vector, basis):
    """The vector less its projection on the rows of the basis, in two passes."""
    for _ in range(2):
        parts = jnp.einsum("bkn,bn->bk", basis, vector, precision="highest")
        shadow = jnp.einsum("bk,bkn->bn", parts, basis, precision="highest")
        vector = vector - shadow
    return vector


def _ritz(bases, count):
    """The largest singular values of B, their residuals and their vectors."""
    most = bases.alphas.shape[1]
    taken = jnp.arange(most) < bases.step
    finite = jnp.all(jnp.isfinite(bases.alphas) & jnp.isfinite(bases.betas), axis=1)
    alphas = jnp.where(finite[:, None], bases.alphas, 0)
    betas = jnp.where(finite[:, None], bases.betas, 0)
    # Steps not taken yet get the largest values of all, which are cut off again: zeros
    # would mix with singular values that are zero. The norm of B is below the sum.
    filler = 1.5 * (jnp.max(alphas, axis=1) + jnp.max(betas, axis=1))
    filler = jnp.where(filler > 0, filler, 1)
    diagonal = jnp.where(taken[None], alphas, filler[:, None])
    above = jnp.where(taken[None, 1:], betas[:, :-1], 0)
    matrix = jax.vmap(lambda d, a: jnp.diag(d) + jnp.diag(a, 1))(diagonal, above)
    p, values, qt = jnp.linalg.svd(matrix)
    skip = most - bases.step
    values = lax.dynamic_slice_in_dim(values, skip, count, 1)
    p = lax.dynamic_slice_in_dim(p, skip, count, 2)
    q = lax.dynamic_slice_in_dim(jnp.swapaxes(qt, 1, 2), skip, count, 2)
    last = bases.step - 1
    residuals = betas[:, last, None] * jnp.abs(p[:, last]) / math.sqrt(2)
    # Where B is zero the SVD returns roundoff of the filler.
    keep = jnp.where(jnp.max(alphas, axis=1) > 0, 1, 0)
    keep = jnp.where(finite, keep, jnp.nan)[:, None]
    return values * keep, residuals * keep, p, q


def _combine(weights, basis):
    return jnp.einsum("bkv,bkn->bvn", weights, basis, precision="highest")


def _norm(vectors):
    return _tree.safe_norm(vectors, axes=-1)


def _validate(num_steps, max_steps, num_values, num_vectors):
    if not 1 <= num_steps <= max_steps:
        raise ValueError(
            f"num_steps={num_steps} and max_steps={max_steps}: at least one step is "
            "needed, and no more between looks than in all."
        )
    if not 0 <= num_vectors <= num_values <= num_steps or num_values < 1:
        raise ValueError(
            f"num_values={num_values} and num_vectors={num_vectors}: there must be at "
            f"least one value, at most num_steps={num_steps}, and no more vectors than "
            "values. Take more steps."
        )
