"""The stated errors hold in a few random cases."""

import pytest

from experiments.stated_errors import SPECTRA, Config, orbits, outside, table


@pytest.mark.slow
def test_stated_errors_hold_in_a_few_cases_of_every_kind():
    text = table(Config(cases=2, width=64, steps=128))
    rows = [line.split("|") for line in text.splitlines()[2:]]
    assert len(rows) == 3 * len(SPECTRA) + 4 + 3
    assert all(float(row[3].strip(" %")) == 0 for row in rows), text


def test_jordan_blocks_are_within_their_errors():
    columns = zip(*orbits(Config(cases=3, steps=128), "Jordan block"), strict=True)
    assert all(outside(*case)[0] == 0 for case in zip(*columns, strict=True))
