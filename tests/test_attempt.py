"""Code of the user's may refuse in any way; what ends a program goes through."""

import pytest

from gradstab._attempt import Refusal, attempt, works
from gradstab.gradcheck.subject.time_limit import OutOfTimeError


def refusing(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [TypeError("no"), AttributeError("no"), KeyError("no"), ZeroDivisionError("no")],
)
def test_what_the_users_code_raises_is_a_refusal(error):
    refusal = attempt(refusing, error)
    assert isinstance(refusal, Refusal)
    assert refusal.error is error
    assert refusal.kind == type(error).__name__
    assert str(refusal) == f"{refusal.kind}: {error}"
    assert not works(refusing, error)


def test_the_words_of_a_refusal_are_one_short_line():
    refusal = Refusal(ValueError("a" * 200 + "\nand more"))
    assert refusal.words(100) == "ValueError: " + "a" * 100
    assert str(Refusal(ValueError())) == "ValueError: "


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), OutOfTimeError()])
def test_what_ends_a_program_or_a_check_is_no_refusal(error):
    with pytest.raises(type(error)):
        attempt(refusing, error)


def test_a_value_is_returned_as_it_is():
    assert attempt(divmod, 7, 2) == (3, 1)
    assert attempt(lambda: None) is None
    assert works(lambda: None)
