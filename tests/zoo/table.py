"""The zoo as a table: layers found, agreement with the user's list, relative errors.

    python tests/zoo/table.py

Four minutes on one CPU. The error is that of the product of the layers' Jacobians
against the end-to-end Jacobian, over the norm of the latter.
"""

import jax.numpy as jnp
import numpy as np
from apart import ZOO, take_apart
from rich.console import Console
from rich.table import Table

COLUMNS = ("framework", "model", "layers", "names", "float64", "float32")


def main():
    """Take every model apart in both precisions, and print a row for each."""
    rows = [_row(entry) for entry in ZOO]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    console.print(table)
    analysed = [row for row in rows if row[3] != "failed"]
    named = sum(row[3] == "as listed" for row in rows)
    console.print(f"{len(analysed)} of {len(rows)} analysed, {named} named as listed")


def _row(entry):
    model = entry.make.__name__
    try:
        wide, narrow = (take_apart(entry, t) for t in (jnp.float64, jnp.float32))
    except Exception as error:
        why = str(error).splitlines()[0]
        return entry.framework, model, why[:60], "failed", "", ""
    names = wide.network.names
    listed = "as listed" if names == entry.names else ", ".join(names)
    errors = [f"{_relative_error(found):.1e}" for found in (wide, narrow)]
    return entry.framework, model, str(len(names)), listed, *errors


def _relative_error(found):
    gap = np.linalg.norm(found.product - found.jacobian)
    return gap / np.linalg.norm(found.jacobian)


if __name__ == "__main__":
    main()
