"""/docs: FastAPI's page of Swagger UI, with a policy that lets the browser load what the page names.

Scripts and styles come from the addresses in FastAPI's page; its inline script is let through by its hash.
"""

import base64
import hashlib
import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_SCRIPT = re.compile(r'<script src="(https://[^"]+)"')
_STYLE = re.compile(r'<link type="text/css" rel="stylesheet" href="(https://[^"]+)"')
_ICON = re.compile(r'<link rel="shortcut icon" href="(https://[^"]+)"')


def add_docs_page(app: FastAPI) -> None:
    """Instead of FastAPI's own routes, which `docs_url=None` and `redoc_url=None` switch off."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = str(request.scope.get("root_path", "")).rstrip("/")
        page = get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title=app.title)
        page.headers["Content-Security-Policy"] = docs_policy(bytes(page.body).decode())
        return page


def docs_policy(html: str) -> str:
    """A Content-Security-Policy for what this page has, and nothing else."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(html)
    ]
    sources = {
        "default-src": ["'none'"],
        "script-src": [*_SCRIPT.findall(html), *hashes],
        "style-src": [*_STYLE.findall(html), "'unsafe-inline'"],  # Swagger UI sets style attributes
        "img-src": ["'self'", "data:", *_ICON.findall(html)],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(values)}" for name, values in sources.items())
