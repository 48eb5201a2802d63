"""Every kind of step has a law of its own, or says why not."""

import pytest

from gradstab.theory import structure
from gradstab.theory.laws import NoTheoryError
from gradstab.theory.walk import Walk

LAWS = {
    structure.Reshape: "_reshape",
    structure.Product: "_product",
    structure.Affine: "_affine",
    structure.Elementwise: "_elementwise",
    structure.Norm: "_norm",
    structure.Sum: "_sum",
}


def _step(kind):
    step = object.__new__(kind)
    object.__setattr__(step, "reason", "nobody knows")
    return step


@pytest.fixture
def walk(monkeypatch):
    for name in LAWS.values():
        told = lambda self, step, law, name=name: (name, step, law)  # noqa: E731
        monkeypatch.setattr(Walk, name, told)
    return object.__new__(Walk)


@pytest.mark.parametrize("kind", LAWS)
def test_a_step_goes_to_the_law_of_its_kind(walk, kind):
    step = _step(kind)
    assert walk._after(step, "law") == (LAWS[kind], step, "law")


def test_no_kind_is_left_out(walk):
    kinds = structure.Step.__subclasses__()
    ours = {kind for kind in kinds if kind.__module__ == structure.__name__}
    assert {*LAWS, structure.Unknown} == ours
    with pytest.raises(NoTheoryError, match="nobody knows"):
        walk._after(_step(structure.Unknown), "law")


def test_a_kind_without_a_law_is_an_error_that_names_it(walk):
    class Fourier(structure.Step):
        """A step that nobody wrote a law for."""

    with pytest.raises(AssertionError, match="Fourier"):
        walk._after(_step(Fourier), "law")
