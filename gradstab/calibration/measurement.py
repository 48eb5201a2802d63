"""The spread of every product's output, and what scaled weights do to it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.calibration.products import LayerScan, Plan, Product
from gradstab.program.trace import Program
from gradstab.program.walk import (
    Environment,
    environment,
    evaluate,
    outputs,
    split_operands,
    walk,
)


def output_deviations(
    program: Program, plan: Plan, leaves: Sequence[Any], active: jax.Array, /
) -> jax.Array:
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
    env = environment(program.closed, leaves)
    flags = {product: product.part_of(active) for product in plan.products}
    scans = {id(scan.eqn): scan for scan in plan.scans}
    found: dict = {}
    _run(program.eqns, env, flags, scans, found)
    parts = [jnp.ravel(found[product]) for product in plan.products]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def scale_weights(leaves: Sequence[Any], plan: Plan, factors: np.ndarray, /) -> list:
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


def _run(
    eqns: Sequence[_compat.JaxprEqn],
    env: Environment,
    flags: dict[Product, jax.Array],
    scans: dict[int, LayerScan],
    found: dict[Product, jax.Array],
) -> None:
    product_of = {id(product.eqn): product for product in flags}

    def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]) -> Sequence[jax.Array]:
        product = product_of.get(id(eqn))
        if id(eqn) in scans:
            return _run_scan(scans[id(eqn)], operands, flags, found)
        results = evaluate(eqn, operands)
        if product is None:
            return results
        (result,) = results
        found[product] = deviation = _deviation(result)
        usable = flags[product] & (deviation > 0) & jnp.isfinite(deviation)
        divisor = jnp.where(usable, deviation, jnp.ones_like(deviation))
        return [(_at_least_float32(result) / divisor).astype(result.dtype)]

    walk(eqns, env, rule)


def _run_scan(
    scan: LayerScan,
    operands: Sequence[Any],
    flags: dict[Product, jax.Array],
    found: dict[Product, jax.Array],
) -> list[jax.Array]:
    parts = scan.parts
    consts, carry, xs = split_operands(parts, operands)

    def step(
        carry: Sequence[jax.Array], slices: tuple[Sequence[jax.Array], list[jax.Array]]
    ):
        xs, flags = slices
        env, seen = environment(scan.body, [*consts, *carry, *xs]), {}
        of_product = dict(zip(scan.products, flags, strict=True))
        _run(scan.body.jaxpr.eqns, env, of_product, {}, seen)
        results = outputs(scan.body, env)
        split = parts.num_carry
        return results[:split], (results[split:], [seen[p] for p in scan.products])

    inner = [flags[product] for product in scan.products]
    carry, (ys, seen) = jax.lax.scan(
        step, carry, (xs, inner), length=parts.length, reverse=parts.reverse
    )
    found.update(zip(scan.products, seen, strict=True))
    return [*carry, *ys]


def _deviation(array: jax.Array) -> jax.Array:
    """The standard deviation over all entries, in float32 at least, overflow-safe."""
    wide = _at_least_float32(array)
    scale = _tree.power_of_two_near(jnp.max(jnp.abs(wide)))
    return scale * jnp.std(wide / scale)


def _times(leaf: Any, factor: np.ndarray) -> jax.Array:
    wide = _at_least_float32(leaf)
    return (wide * jnp.asarray(factor, wide.dtype)).astype(leaf.dtype)


def _at_least_float32(array: jax.Array) -> jax.Array:
    return array if jnp.finfo(array.dtype).bits >= 32 else array.astype(jnp.float32)
