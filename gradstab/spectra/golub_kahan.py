r"""The largest singular values of a Jacobian that is known by its products only.

Golub-Kahan bidiagonalisation with blocks of b vectors builds orthonormal bases
:math:`U_k, V_k` with

.. math:: J V_k = U_k B_k, \qquad
          J^T U_k = V_k B_k^T + v_{k+1} S_k E_k^T ,

where :math:`B_k` is block bidiagonal. A singular triplet :math:`(p, \theta, q)` of
:math:`B_k` gives the approximate triplet :math:`(U_k p, \theta, V_k q)` of :math:`J`.
It violates only the second equation, by :math:`\rho = S_k E_k^T p`. As many singular
values of :math:`J` as there are triplets lie within
:math:`\|(\rho_1, \rho_2, \dots)\| / \sqrt 2` of theirs; which ones they are is what
`upper_bounds` tells.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from gradstab import _tree
from gradstab.errors import UserValueError
from gradstab.records import record
from gradstab.spectra.certificate import upper_bounds
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.orthogonal_blocks import next_block

# Steps between looks at the bounds: a look costs a decomposition of B.
_BETWEEN = 4


@record
class Triplets:
    """The leading singular values of Jacobians, with bounds and vectors.

    Attributes:
        values: (num, num_values) in descending order.
        bounds: (num, num_values) the singular value of the same rank, counted with
            multiplicity, lies within this distance of the value, but for a chance of
            1e-3 for each Jacobian.
        converged: (num,) whether all bounds met the tolerances; False where the cap on
            the vectors was hit or the Jacobian is not finite.
        num_products: scalar, products with a Jacobian or its transpose.
        left: (num, num_vectors, n_out) unit vectors, of arbitrary sign.
        right: (num, num_vectors, n_in) the vectors that the Jacobian maps to them.
    """

    values: jax.Array
    bounds: jax.Array
    converged: jax.Array
    num_products: jax.Array
    left: jax.Array
    right: jax.Array


@record
class _Bases:
    """The state of the bidiagonalisation after ``step`` steps of a block each."""

    left: jax.Array  # (num, size, n_out)
    right: jax.Array  # (num, size + b, n_in)
    matrix: jax.Array  # (num, size, size + b): B, and beside it the S of the last step
    scale: jax.Array  # (num,): the largest coefficient so far
    start: jax.Array  # (num,): norm of what the right basis was begun from
    step: jax.Array
    done: jax.Array


def golub_kahan(
    num_values: int = 8,
    *,
    block: int = 3,
    rtol: float = 1e-5,
    rtol_all: float = 3e-2,
    max_vectors: int = 128,
    num_vectors: int = 0,
):
    r"""Leading singular values by Golub-Kahan bidiagonalisation.

    Both bases are reorthogonalised in full. Where a coefficient is no larger than
    rounding, the Krylov space is exhausted: the coefficient is zero and the recursion
    goes on from a random vector orthogonal to the basis. So exact copies of a value are
    all found, and Jacobians that are zero or rank-deficient give zeros. Of a cluster of
    values that products cannot tell apart a block of b vectors finds b; with
    ``block > num_values`` that is all that are asked for.

    Args:
        num_values: how many values to return.
        block: vectors in a block. Small ones find isolated values with the fewest
            products.
        rtol: go on until the residual of the largest value is at most this times the
            value, for all examples,
        rtol_all: and the bounds of all values are at most this times the largest.
        max_vectors: stop with so many vectors in a basis in any case, and say so in
            ``converged``.
        num_vectors: of how many values the singular vectors are returned.

    Returns:
        ``decompose(linear_map, key)``, which returns `Triplets` of at most
        ``min(linear_map.shape)`` values; ``key`` draws the starting vectors. It
        survives jit and vmap; it accumulates in float32, or in float64 if the map does.
        Values are NaN where a Jacobian is not finite. Cost: two products for each
        vector of a basis, and :math:`O(k^2 (n_{in} + n_{out}))` operations and
        :math:`O(k (n_{in} + n_{out}))` memory per example for k of them: the memory of
        ``max_vectors`` is taken.

    Raises:
        ValueError: if the numbers of vectors and values do not fit together.

    References:
        Golub and Kahan (1965), Calculating the singular values and pseudo-inverse of a
        matrix; Golub, Luk and Overton (1981), A block Lanczos method for computing the
        singular values and corresponding singular vectors of a matrix. Residuals:
        Parlett (1998), The Symmetric Eigenvalue Problem, theorem 11.5.1, for the matrix
        [0 J; J^T 0].

    Examples:
        >>> gains = jnp.array([[3.0, 2.0, 0.0]])
        >>> scaling = LinearMap(lambda v: v * gains, lambda w: w * gains, 1, (3, 3))
        >>> golub_kahan()(scaling, jax.random.key(0)).values.round(4)
        Array([[3., 2., 0.]], dtype=float32)
    """
    _validate(block, max_vectors, num_values, num_vectors)

    def decompose(linear_map: LinearMap, key: jax.Array, /) -> Triplets:
        small_side = min(linear_map.shape)
        count, width = min(num_values, small_side), min(block, small_side)
        most = min(max_vectors // width, -(-small_side // width))
        rounding = roundoff(linear_map) * math.sqrt(max(linear_map.shape))
        # The singular values of B, and the sums of the reorthogonalisation.
        small = 4 * float(jnp.finfo(work_dtype(linear_map)).eps)
        small *= math.sqrt(most * width)
        first, spare_u, spare_v = _random_vectors(linear_map, key, width)
        advance = _step(linear_map, spare_u, spare_v, rounding)

        def look_again(bases):
            return (bases.step < most) & ~jnp.all(bases.done)

        def several(bases):
            stop = jnp.minimum(bases.step + _BETWEEN, most)
            bases = lax.fori_loop(bases.step, stop, advance, bases)
            found = _ritz(bases, count, small_side)
            done = met(found) | ~jnp.isfinite(found.values[:, 0])
            return dataclasses.replace(bases, done=done)

        def met(found):
            largest = found.values[:, :1]
            near = jnp.all(found.bounds <= rtol_all * largest, axis=1)
            return near & (found.residuals[:, 0] <= rtol * largest[:, 0])

        start = _start(linear_map, first, spare_v, most, rounding)
        bases = lax.while_loop(look_again, several, start)
        found = _ritz(bases, count, small_side)
        few = min(num_vectors, count)
        return Triplets(
            values=found.values,
            bounds=found.bounds + (2 * rounding + small) * found.values[:, :1],
            converged=met(found),
            num_products=width * (1 + 2 * bases.step),
            left=_combine(found.p[:, :, :few], bases.left),
            right=_combine(found.q[:, :, :few], bases.right[:, :-width]),
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


def _dtypes(linear_map: LinearMap):
    forward, backward = two_way(linear_map)
    tangent, cotangent = _vectors(linear_map)
    return (
        jax.eval_shape(forward, tangent).dtype,
        jax.eval_shape(backward, cotangent).dtype,
    )


def _vectors(linear_map: LinearMap):
    n_out, n_in = linear_map.shape
    shapes = (linear_map.num, n_in), (linear_map.num, n_out)
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def _random_vectors(linear_map: LinearMap, key: jax.Array, width: int):
    """Gaussian cotangents, twice, and tangents, in one draw to compile it once."""
    num, (n_out, n_in) = linear_map.num, linear_map.shape
    shape = (num, width, 2 * n_out + n_in)
    both = jax.random.normal(key, shape, work_dtype(linear_map))
    return jnp.split(both, [n_out, 2 * n_out], axis=2)


def _start(linear_map: LinearMap, w, spare, most, rounding):
    """The bases before the first step, begun from the images of cotangents.

    The image of a random cotangent has no part in the null space of the Jacobian.
    """
    num, width, n_in = spare.shape
    n_out, dtype, size = linear_map.shape[0], w.dtype, most * width
    images = jax.vmap(linear_map.rmatvec, 1, 1)(w).astype(dtype)
    right = jnp.zeros((num, size + width, n_in), dtype)
    nothing = jnp.zeros(num, dtype)
    first, _, scale = next_block(images, right[:, :1], nothing, rounding, spare)
    return _Bases(
        left=jnp.zeros((num, size, n_out), dtype),
        right=right.at[:, :width].set(first),
        matrix=jnp.zeros((num, size, size + width), dtype),
        # Not of a product with a unit vector, so no coefficient.
        scale=jnp.zeros_like(scale),
        start=scale,
        step=jnp.array(0),
        done=jnp.zeros(num, bool),
    )


def _step(linear_map: LinearMap, spare_u, spare_v, rounding):
    """The function that takes one step of the bidiagonalisation."""
    forward, backward = (jax.vmap(one, 1, 1) for one in two_way(linear_map))
    width = spare_u.shape[1]

    def put(array, value, step, axis):
        return lax.dynamic_update_slice_in_dim(array, value, step * width, axis)

    def advance(step, bases):
        # Cyclic shifts of a random vector are linearly independent.
        new_u, new_v = (jnp.roll(spare, step, 2) for spare in (spare_u, spare_v))
        u = forward(_block(bases.right, step, width, 1))
        u, upper, scale = next_block(u, bases.left, bases.scale, rounding, new_u)
        v = backward(u)
        v, lower, scale = next_block(v, bases.right, scale, rounding, new_v)
        rows = _block(bases.matrix, step, width, 1)
        rows = put(rows, jnp.swapaxes(upper, 1, 2), step, 2)
        rows = put(rows, lower, step + 1, 2)
        return dataclasses.replace(
            bases,
            left=put(bases.left, u, step, 1),
            right=put(bases.right, v, step + 1, 1),
            matrix=put(bases.matrix, rows, step, 1),
            scale=scale,
            step=step + 1,
        )

    return advance


def _block(array, step, width: int, axis):
    return lax.dynamic_slice_in_dim(array, step * width, width, axis)


@record
class _Ritz:
    """The largest singular values of B, their bounds, residuals and vectors."""

    values: jax.Array  # (num, count)
    bounds: jax.Array  # (num, count)
    residuals: jax.Array  # (num, size)
    p: jax.Array  # (num, size, size)
    q: jax.Array  # (num, size, size)


def _ritz(bases, count: int, small_side):
    size, wide = bases.matrix.shape[1:]
    width = wide - size
    finite = jnp.all(jnp.isfinite(bases.matrix), axis=(1, 2))
    matrix = jnp.where(finite[:, None, None], bases.matrix, 0)
    p, values, q = _decomposed(matrix[:, :, :size], bases.step * width)
    last = jnp.maximum(bases.step - 1, 0)
    beside = _block(_block(matrix, last, width, 1), last + 1, width, 2)
    beyond = jnp.einsum(
        "bij,bik->bjk", beside, _block(p, last, width, 1), precision="highest"
    )
    first = jnp.swapaxes(q[:, :width], 1, 2)
    most = min(count + 1, size)
    above = upper_bounds(values, beyond, first, bases.start, most)
    residuals = _tree.safe_norm(beyond, axes=1)
    excess = above[:, :count] - values[:, :count]
    bounds = jnp.minimum(excess, _paired(values, above, residuals, count))
    # A basis of the whole space leaves nothing beyond the residuals.
    joint = _tree.safe_norm(residuals, axes=1)[:, None]
    complete = bases.step * width >= small_side
    bounds = jnp.where(complete, jnp.minimum(bounds, joint), bounds)
    keep = jnp.where(finite, 1, jnp.nan)[:, None]
    values, bounds = values[:, :count] * keep, bounds * keep
    return _Ritz(values, bounds, residuals * keep, p, q)


def _decomposed(matrix, taken):
    """Singular values and vectors of the leading ``taken`` rows and columns of B.

    Beyond them the values are zero.
    """
    size = matrix.shape[1]
    inside = (jnp.arange(size) < taken)[None]
    matrix = jnp.where(inside[:, :, None] & inside[:, None], matrix, 0)
    norm = _tree.safe_norm(matrix, axes=(1, 2))[:, None]
    # What is not taken yet gets the largest values of all, which are cut off again:
    # zeros would mix with singular values that are zero.
    filler = jnp.where(inside, 0, jnp.where(norm > 0, 1.5 * norm, 1))
    filled = matrix + jax.vmap(jnp.diag)(filler)
    p, values, qt = jnp.linalg.svd(filled)
    values = jnp.where(inside, jnp.roll(values, taken - size, 1), 0)
    # Where B is zero the SVD returns roundoff of the filler.
    values = jnp.where(norm > 0, values, 0)
    p, q = (jnp.roll(v, taken - size, 2) for v in (p, jnp.swapaxes(qt, 1, 2)))
    return p, values, q


def _paired(values, above, residuals, count: int):
    """The distance to singular values of the same rank, where a gap says which.

    The first m values are near m singular values; they are the first m, if the next one
    is known to be below them.
    """
    # Squares of very small and of very large numbers leave the range.
    unit = jnp.where(values[:, :1] > 0, values[:, :1], 1)
    squares = jnp.square(residuals[:, :count] / unit)
    joint = unit * jnp.sqrt(jnp.cumsum(squares, axis=1) / 2)
    missing = count + 1 - above.shape[1]
    after = jnp.pad(above[:, 1:], ((0, 0), (0, missing)), constant_values=jnp.inf)
    joint = jnp.where(values[:, :count] - joint > after, joint, jnp.inf)
    return lax.cummin(joint, axis=1, reverse=True)


def _combine(weights, basis):
    return jnp.einsum("bkv,bkn->bvn", weights, basis, precision="highest")


def _validate(block, max_vectors, num_values: int, num_vectors: int):
    if not 1 <= block <= max_vectors:
        raise UserValueError(
            f"block={block} and max_vectors={max_vectors}: a block has at least one "
            "vector, and no more than there may be in all."
        )
    if not 0 <= num_vectors <= num_values <= max_vectors // block * block:
        raise UserValueError(
            f"num_values={num_values} and num_vectors={num_vectors}: there must be at "
            f"least one value, at most max_vectors={max_vectors} of them, and no more "
            "vectors than values. Allow more vectors."
        )
    if num_values < 1:
        raise UserValueError("num_values=0: there must be at least one value.")
