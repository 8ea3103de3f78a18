import inspect
from pathlib import Path

import pytest

import app.errors
import retrieval.errors
from app.problems import problem_response
from retrieval.errors import PaelleraError

FOR_THE_COMMAND_LINE_ONLY = {"invalid_keys_file", "invalid_settings", "missing_package"}
NEVER_RAISED_THEMSELVES = {"retry_later"}


def test_the_documentation_lists_every_code_with_its_status() -> None:
    page = (Path(__file__).parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
    for module in (app.errors, retrieval.errors):
        for error in vars(module).values():
            if not (inspect.isclass(error) and issubclass(error, PaelleraError)):
                continue
            if error.code in FOR_THE_COMMAND_LINE_ONLY | NEVER_RAISED_THEMSELVES:
                continue
            rows = [row for row in page.splitlines() if row.startswith(f"| {error.status} |")]
            assert any(f"`{error.code}`" in row for row in rows), error


@pytest.mark.parametrize("detail", ["صورة", "\ud800 half a character", 'quotes " and \\'])
def test_any_detail_can_be_sent(detail: str) -> None:
    response = problem_response("invalid_request", 422, detail, "r")
    assert b'"code": "invalid_request"' in bytes(response.body)
    bytes(response.body).decode("utf-8")
