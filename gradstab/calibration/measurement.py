"""The spread of every product's output, and what scaled weights do to it."""

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.program.trace import evaluate


def output_deviations(program, plan, leaves, active, /) -> jax.Array:
    """The standard deviation of every product's output, in one evaluation.

    The output of an active product is divided by its deviation before it flows on, as
    if its weights had been.

    Args:
        program: the flat program.
        plan: its products.
        leaves: values of the program's inputs.
        active: (rows,) booleans.

    Returns:
        (rows,) deviations, in the plan's order.
    """
    env = dict(_compat.constants(program.closed))
    env.update(zip(program.closed.jaxpr.invars, leaves, strict=True))
    flags = {product: product.part_of(active) for product in plan.products}
    scans = {id(scan.eqn): scan for scan in plan.scans}
    found: dict = {}
    _run(program.eqns, env, flags, scans, found)
    parts = [jnp.ravel(found[product]) for product in plan.products]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def scale_weights(leaves, plan, factors, /) -> list:
    """The parameter leaves, those of each product times its factor.

    Args:
        leaves: the parameter leaves.
        plan: the products.
        factors: (rows,) one per product and layer, in the plan's order.
    """
    leaves = list(leaves)
    for product in plan.products:
        factor = product.part_of(factors)
        if np.any(factor != 1):
            leaf = leaves[product.leaf]
            axes = (1,) * (leaf.ndim - np.ndim(factor))
            leaves[product.leaf] = _times(
                leaf, np.reshape(factor, (*np.shape(factor), *axes))
            )
    return leaves


def _run(eqns, env, flags, scans, found):
    product_of = {id(product.eqn): product for product in flags}
    for eqn in eqns:
        operands = [_read(env, atom) for atom in eqn.invars]
        product = product_of.get(id(eqn))
        if id(eqn) in scans:
            results = _run_scan(scans[id(eqn)], operands, flags, found)
        elif product is None:
            results = evaluate(eqn, operands)
        else:
            (result,) = evaluate(eqn, operands)
            found[product] = deviation = _deviation(result)
            usable = flags[product] & (deviation > 0) & jnp.isfinite(deviation)
            divisor = jnp.where(usable, deviation, jnp.ones_like(deviation))
            results = [(_at_least_float32(result) / divisor).astype(result.dtype)]
        env.update(zip(eqn.outvars, results, strict=True))


def _run_scan(scan, operands, flags, found):
    parts, invars = scan.parts, scan.body.jaxpr.invars
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    consts, carry, xs = operands[:first], operands[first:last], operands[last:]

    def step(carry, slices):
        xs, flags = slices
        env, seen = dict(_compat.constants(scan.body)), {}
        env.update(zip(invars, [*consts, *carry, *xs], strict=True))
        of_product = dict(zip(scan.products, flags, strict=True))
        _run(scan.body.jaxpr.eqns, env, of_product, {}, seen)
        results = [_read(env, atom) for atom in scan.body.jaxpr.outvars]
        split = parts.num_carry
        return results[:split], (results[split:], [seen[p] for p in scan.products])

    inner = [flags[product] for product in scan.products]
    carry, (ys, seen) = jax.lax.scan(
        step, carry, (xs, inner), length=parts.length, reverse=parts.reverse
    )
    found.update(zip(scan.products, seen, strict=True))
    return [*carry, *ys]


def _deviation(array):
    """The standard deviation over all entries, in float32 at least, overflow-safe."""
    wide = _at_least_float32(array)
    scale = _tree.power_of_two_near(jnp.max(jnp.abs(wide)))
    return scale * jnp.std(wide / scale)


def _times(leaf, factor):
    wide = _at_least_float32(leaf)
    return (wide * jnp.asarray(factor, wide.dtype)).astype(leaf.dtype)


def _at_least_float32(array):
    return array if jnp.finfo(array.dtype).bits >= 32 else array.astype(jnp.float32)


def _read(env, atom):
    return atom.val if isinstance(atom, _compat.Literal) else env[atom]
