import pytest

from app.problems import problem_response


@pytest.mark.parametrize("detail", ["صورة", "\ud800 half a character", 'quotes " and \\'])
def test_any_detail_can_be_sent(detail: str) -> None:
    response = problem_response("invalid_request", 422, detail, "r")
    assert b'"code": "invalid_request"' in bytes(response.body)
    bytes(response.body).decode("utf-8")
