from pathlib import Path

import pytest

from app.errors import COMMAND_LINE
from hostile.corpus import CLASSES
from hostile.error_codes import error_classes
from hostile.errors_page import documented, errors_page, number_of_inputs
from hostile.inputs import CAPTIONED
from retrieval.errors import PaelleraError

PAGE = Path(__file__).parent.parent.parent / "docs" / "errors.md"


def test_the_page_of_errors_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == errors_page(), "make format"


def test_the_corpus_is_large_and_its_answers_are_codes_of_the_service() -> None:
    assert sum(map(number_of_inputs, CLASSES)) >= 500
    assert len({declared.name for declared in CLASSES}) == len(CLASSES)
    codes = {error.code for error in documented()}
    for declared in CLASSES:
        assert declared.answers, declared.name
        assert declared.answers <= codes | {CAPTIONED}, declared.name


@pytest.mark.parametrize("error", tuple(error_classes()), ids=lambda error: error.__name__)
def test_an_error_says_what_has_happened_and_what_to_do(error: type[PaelleraError]) -> None:
    assert error.__doc__
    assert error.__doc__.rstrip().endswith(".")
    assert error.where == COMMAND_LINE or error.advice.endswith(".")


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in error_classes()]
    assert len(set(codes)) == len(codes)
