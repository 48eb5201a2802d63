"""What does `gradstab.training.fit` cost beyond a hand-written training step?

Beyond a hand-written `jax.jit` step, a step of `fit` checks that the loss and the
update are finite, records both and the accuracy, keeps the old state where they are
not, and writes a line to ``metrics.jsonl``. Both train the 784-300-100-10 ELU network
with batch normalisation on random data, with the same number of steps per dispatch.
They are measured in turn, the order within a pair alternating: ``steps`` is the
compiled function alone; ``fit`` is the whole call with its host loop and files, against
a host loop by hand that reads the losses likewise. What comes once per run (compiling,
copying the data, the last checkpoint) is not counted: the clock of both runs from the
first dispatch read to the last.

Expected: a median of the pairs' ratios of at most 1.05, with an upper 95 % bound of at
most 1.10, for steps of 5 ms and more. Measured on two cores of a CPU that others used
too, steps of 16 ms: 0.99 to 1.02, bounds 1.03 to 1.09. Three minutes.

    python -m experiments.benchmarks.train_step
"""

import dataclasses
import functools
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments._run import print_table
from gradstab import training
from gradstab.data import batch_plan
from gradstab.training.step import graphdefs

OPTIMIZERS = {"sgd": optax.sgd(0.01), "adam": optax.adam(1e-3)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    batch_size: int = 2000
    num_examples: int = 10_000
    """Training examples on the device."""
    steps_per_dispatch: int = 10
    """Training steps that are compiled into one call."""
    num_dispatches: int = 6
    """Such calls in one call of fit; the first is not counted."""
    num_pairs: int = 30
    """How often the two are timed, in turn."""


class Network(nnx.Module):
    """784-300-100-10, ELU, batch normalisation after every layer but the last."""

    def __init__(self, rngs):
        self.first = nnx.Linear(784, 300, rngs=rngs)
        self.second = nnx.Linear(300, 100, rngs=rngs)
        self.head = nnx.Linear(100, 10, rngs=rngs)
        self.first_norm = nnx.BatchNorm(300, rngs=rngs)
        self.second_norm = nnx.BatchNorm(100, rngs=rngs)

    def __call__(self, x):
        """The logits of a batch."""
        h = nnx.elu(self.first_norm(self.first(x)))
        return self.head(nnx.elu(self.second_norm(self.second(h))))


def hand_written(graphdef, optimizer):
    """The same steps, as one would write them without a library."""

    def body(x, y, carry, rows):
        params, state, opt_state = carry

        def objective(params):
            model = nnx.merge(graphdef, params, state)
            logits = model(x[rows])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y[rows])
            _, _, new = nnx.split(model, nnx.Param, ...)
            return jnp.mean(losses), nnx.to_pure_dict(new)

        (loss, state), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(carry, x, y, plan):
        return jax.lax.scan(functools.partial(body, x, y), carry, plan)

    return steps


def compare(ours, theirs, num_pairs):
    """Seconds ``(num_pairs, 2)`` that two functions return, called in turn."""
    for function in (ours, theirs):
        function()  # compiles
    times = np.empty((num_pairs, 2))
    for pair in range(num_pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            times[pair, which] = (ours, theirs)[which]()
    return times


def upper_bound(ratios, /):
    """Upper end of the 95 % confidence interval of the median, by order statistics.

    The number of ratios below the true median is binomial (n, 1/2); the bound is the
    first order statistic that lies above the median with probability 0.975.
    """
    ordered, below, num = np.sort(ratios), 0.0, len(ratios)
    binomial = 0.5**num
    for rank in range(num):
        below += binomial
        if below >= 0.975:
            return ordered[rank]
        binomial *= (num - rank) / (rank + 1)
    return ordered[-1]


def compare_steps(config, model, optimizer, x, y):
    """Seconds per step of the compiled functions."""
    graphdef, _ = graphdefs(model)
    ours = training.make_steps(graphdef, optimizer, loss=training.cross_entropy)
    theirs = hand_written(graphdef, optimizer)
    plan = plan_of(config, 0)
    x, y = jax.device_put((x, y))
    state, carry = (training.initial_state(model, optimizer) for _ in range(2))
    carry = (carry.params, carry.model_state, carry.opt_state)

    def call(steps, carry, *arguments):
        start = time.perf_counter()
        carry, _ = jax.block_until_ready(steps(carry, x, y, plan, *arguments))
        return carry, (time.perf_counter() - start) / config.steps_per_dispatch

    def call_ours():
        nonlocal state
        state, seconds = call(ours, state, 2**30)
        return seconds

    def call_theirs():
        nonlocal carry
        carry, seconds = call(theirs, carry)
        return seconds

    return compare(call_ours, call_theirs, config.num_pairs)


def compare_loops(config, model, optimizer, x, y):
    """Seconds per step from the first dispatch read to the last."""
    graphdef, _ = graphdefs(model)
    theirs = hand_written(graphdef, optimizer)
    num_steps = config.steps_per_dispatch * config.num_dispatches
    counted = num_steps - config.steps_per_dispatch

    def call_fit():
        with tempfile.TemporaryDirectory() as folder:
            run = training.fit(
                model,
                (x, y),
                optimizer=optimizer,
                num_steps=num_steps,
                batch_size=config.batch_size,
                steps_per_dispatch=config.steps_per_dispatch,
                directory=folder,
            )
        return (run.history["time"][-1] - run.history["time"][0]) / counted

    def call_loop():
        state = training.initial_state(model, optimizer)
        carry, before = (state.params, state.model_state, state.opt_state), None
        on_device, reads = jax.device_put((x, y)), []
        for number in range(config.num_dispatches + 1):
            if number < config.num_dispatches:
                carry, losses = theirs(carry, *on_device, plan_of(config, number))
            if before is not None:
                np.asarray(before)
                reads.append(time.perf_counter())
            before = losses
        return (reads[-1] - reads[0]) / counted

    return compare(call_fit, call_loop, config.num_pairs)


def plan_of(config, number):
    """The batches of one dispatch."""
    return batch_plan(
        0,
        number * config.steps_per_dispatch,
        config.steps_per_dispatch,
        num_examples=config.num_examples,
        batch_size=config.batch_size,
    )


def run(config):
    """Seconds per step of every pair, by optimiser and what was measured."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((config.num_examples, 784), np.float32)
    y = rng.integers(0, 10, config.num_examples, np.int32)
    model = Network(nnx.Rngs(0))
    return {
        (name, what): measured(config, model, optimizer, x, y)
        for name, optimizer in OPTIMIZERS.items()
        for what, measured in (("steps", compare_steps), ("fit", compare_loops))
    }


def table(results):
    """One row for every comparison."""
    lines = [
        "| optimiser | measured | ours, ms | by hand, ms | ratio | upper 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for (name, what), times in results.items():
        ours, theirs = 1e3 * np.median(times, axis=0)
        ratios = times[:, 0] / times[:, 1]
        numbers = (ours, theirs, np.median(ratios), upper_bound(ratios))
        cells = name, what, *(f"{number:.3f}" for number in numbers)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, lambda config: table(run(config)))
