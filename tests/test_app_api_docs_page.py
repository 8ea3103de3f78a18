"""What a browser would load for /docs, and that it needs nobody else."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from service_client import service_client
from starlette.testclient import TestClient

from app.access.keys import new_key, write_keys

LOADING = {"href", "src", "action", "data", "srcset", "poster"}


class _Page(HTMLParser):
    """What a page loads, and what stands in it that a strict policy would not run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.addresses += [value or "" for name, value in attributes if name in LOADING]
        self.inline += [name for name, _ in attributes if name == "style" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


def loaded(client: TestClient, address: str) -> list[str]:
    """The addresses that the page names, as a browser resolves them, without those that hold their data."""
    page = _Page(client.get(address).text)
    assert page.inline == []
    return [urljoin(address, named) for named in page.addresses if not named.startswith("data:")]


def test_the_page_loads_nothing_from_another_host() -> None:
    with service_client() as client:
        base = "http://testserver/docs"
        addresses = loaded(client, base)
        assert len(addresses) == 3
        assert all(address.startswith("http://testserver/docs/") for address in addresses)
        answers = {address.partition("?")[0].rpartition("/")[2]: client.get(address) for address in addresses}
        assert client.get("/redoc").status_code == 404
    assert {answer.status_code for answer in answers.values()} == {200}
    assert "SwaggerUIBundle" in answers["swagger-ui-bundle.js"].text
    assert "validatorUrl: null" in answers["start.js"].text  # else it would ask validator.swagger.io
    assert answers["swagger-ui.css"].headers["content-type"].startswith("text/css")
    assert "url(http" not in answers["swagger-ui.css"].text
    assert "@import" not in answers["swagger-ui.css"].text
    for name in ("start.js", "swagger-ui-bundle.js"):  # `nosniff`: with another type it would not run
        assert answers[name].headers["content-type"].startswith("text/javascript")
    for answer in answers.values():
        assert "immutable" in answer.headers["cache-control"]


def test_the_policy_allows_nothing_but_this_server() -> None:
    with service_client() as client:
        header = client.get("/docs").headers["content-security-policy"]
    policy = {
        name: values.split() for name, _, values in (part.partition(" ") for part in header.split("; "))
    }
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert {value for values in policy.values() for value in values} == {"'none'", "'self'", "data:"}


def test_every_address_stands_under_a_heading() -> None:
    with service_client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    headings = {tag for path in paths.values() for operation in path.values() for tag in operation["tags"]}
    assert headings == {"captions", "datastore", "operation", "OpenAI's dialect"}


@pytest.mark.parametrize("root", ["", "/pan"])
def test_below_a_path_of_a_proxy_and_without_a_key(tmp_path: Path, root: str) -> None:
    keys = tmp_path / "keys.json"
    write_keys(keys, [new_key("shop")[1]])
    with service_client(keys_file=keys) as client:
        behind = TestClient(client.app, root_path=root)
        base = f"http://testserver{root}/docs"
        assert behind.get(f"{root}/").url == base  # the bare address leads there
        for address in [*loaded(behind, base), urljoin(base, "openapi.json")]:
            assert address.startswith(f"http://testserver{root}/")
            assert behind.get(address).status_code == 200
        assert behind.get(f"{root}/docs/other.js").status_code == 401
        servers = behind.get(f"{root}/openapi.json").json().get("servers", [])
    assert [server["url"] for server in servers] == ([root] if root else [])


def test_another_content_has_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with service_client() as client:
        before = loaded(client, "http://testserver/docs")
    monkeypatch.setattr("app.api.docs_page._START", "SwaggerUIBundle({});")
    with service_client() as client:
        after = loaded(client, "http://testserver/docs")
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False]
