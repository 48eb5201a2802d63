"""What a reader has to hold: annotated parameters, modules that a call enters.

A report, not a limit. Parameters are those of functions and methods, without ``self``,
``cls`` and lambdas. A call enters a module if a function that is written there runs;
what runs when a module is imported does not count.

    python -m tests.house_report                # both
    python -m tests.house_report --parameters   # without the calls: nothing is run
    python -m tests.house_report --names        # which modules
"""

import argparse
import ast
import collections
import pathlib
import sys

import gradstab

ROOT = pathlib.Path(gradstab.__file__).parent


def parameters(source):
    """``(annotated, all)`` of the parameters of a source."""
    annotated = total = 0
    tree = ast.parse(source)
    methods = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for child in node.body
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = node.args
        rows = [*arguments.posonlyargs, *arguments.args]
        decorators = {getattr(d, "id", None) for d in node.decorator_list}
        if id(node) in methods and "staticmethod" not in decorators:
            rows = rows[1:]
        rows += [*arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        rows = [row for row in rows if row is not None]
        annotated += sum(row.annotation is not None for row in rows)
        total += len(rows)
    return annotated, total


def by_room():
    """Annotated and all parameters of every room, and of the house."""
    counts = collections.defaultdict(lambda: (0, 0))
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        ours = parameters(path.read_text())
        for key in (room, "all"):
            counts[key] = tuple(map(sum, zip(counts[key], ours, strict=True)))
    return dict(counts)


def entered(call):
    """``(modules, functions)`` of gradstab that a call enters, by their paths."""
    modules, functions = set(), set()

    def look(frame, event, _):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{ROOT}/"):
            return
        if code.co_name != "<module>":
            path = pathlib.Path(code.co_filename).relative_to(ROOT)
            modules.add(str(path))
            functions.add((str(path), code.co_qualname))

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return modules, functions


def calls():
    """The calls of the report by name."""
    import jax.numpy as jnp

    def apply(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    weights, x = [0.5 * jnp.eye(4)] * 3, jnp.ones((3, 4))
    options = {"loss": jnp.sum, "progress": False}
    return {
        "gs.check": lambda: gradstab.check(jnp.tanh, jnp.linspace(-1.0, 1.0, 7)),
        "gs.analyze": lambda: gradstab.analyze(apply, weights, x, **options),
    }


def main():
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", action="store_true", help="without the calls")
    parser.add_argument("--names", action="store_true", help="which modules")
    arguments = parser.parse_args()
    for room, (annotated, total) in by_room().items():
        share = f"{annotated / total:4.0%}" if total else "   -"
        print(f"{room:20} {annotated:5} of {total:5} parameters annotated {share}")
    for name, call in {} if arguments.parameters else calls().items():
        modules, functions = entered(call)
        print(f"{name} enters {len(functions)} functions in {len(modules)} modules")
        if arguments.names:
            print(*(f"    {module}" for module in sorted(modules)), sep="\n")


if __name__ == "__main__":
    main()
