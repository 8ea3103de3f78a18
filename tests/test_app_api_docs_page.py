import base64
import hashlib
import re

from service_client import service_client

from app.api.docs_page import docs_policy


def test_the_policy_lets_the_page_load_what_it_names_and_nothing_else() -> None:
    with service_client() as client:
        response = client.get("/docs")
        assert client.get("/redoc").status_code == 404
    policy = dict(
        directive.split(" ", 1) for directive in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe-inline" not in policy["script-src"]
    assert "unsafe-eval" not in policy["script-src"]
    page = response.text
    assert "'/openapi.json'" in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy["script-src"].split()
    for kind, pattern in (("script-src", r'src="([^"]+)"'), ("style-src", r'stylesheet" href="([^"]+)"')):
        (address,) = re.findall(pattern, page)
        assert address in policy[kind].split()


def test_a_script_that_the_page_does_not_have_is_not_in_the_policy() -> None:
    first, second = docs_policy("<script>one()</script>"), docs_policy("<script>two()</script>")
    assert first != second
    assert first.count("sha256-") == 1
