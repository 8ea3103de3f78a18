"""/docs: Swagger UI, with everything it needs from this server: API keys are typed into that page.

The service's bare address leads there. Swagger UI's files are those of the package fastapi-offline, of which
nothing else is used. All addresses on the page are relative, so that it works below any path that a proxy
puts in front. The browser is told to load nothing from anywhere else and to run no script that stands in the
page itself.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

DOCS_PATH = "/docs"
START_PATH = f"{DOCS_PATH}/start.js"
SCRIPT_PATH = f"{DOCS_PATH}/swagger-ui-bundle.js"
STYLE_PATH = f"{DOCS_PATH}/swagger-ui.css"

DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # Swagger UI's style sheet holds its symbols itself
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# Its address on the page changes with its content.
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{style}">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{script}"></script>
<script src="{start}"></script>
</body>
</html>
"""
# With a validatorUrl Swagger UI would ask a server of its makers about the contract. It would also put values
# of its own into the fields of a form: here they begin empty, which counts as left out.
_START = """const emptyFields = (response) => {
  if (new URL(response.url).pathname.endsWith("/openapi.json")) {
    const contract = JSON.parse(response.text);
    for (const operation of Object.values(contract.paths).flatMap((path) => Object.values(path))) {
      const form = operation.requestBody?.content["multipart/form-data"]?.schema;
      for (const field of Object.values(form?.properties ?? {})) {
        if (field.type !== "array") field.example = "";
      }
    }
    response.text = JSON.stringify(contract);
  }
  return response;
};

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  deepLinking: true,
  showCommonExtensions: true,
  responseInterceptor: emptyFields,
});
"""


def add_docs_page(app: FastAPI) -> None:
    """Instead of FastAPI's own routes, which `docs_url=None` and `redoc_url=None` switch off."""
    static = Path(str(files("fastapi_offline"))) / "static"
    script, style = static / "swagger-ui-bundle.js", static / "swagger-ui.css"
    page = _PAGE.format(
        title=app.title,
        style=_address(STYLE_PATH, style.read_bytes()),
        script=_address(SCRIPT_PATH, script.read_bytes()),
        start=_address(START_PATH, _START.encode()),
    )

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse(DOCS_PATH.removeprefix("/"))

    @app.get(DOCS_PATH, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": DOCS_POLICY})

    @app.get(START_PATH, include_in_schema=False)
    async def docs_start() -> Response:
        return Response(_START, headers=_FOR_EVER, media_type="text/javascript")

    @app.get(SCRIPT_PATH, include_in_schema=False)
    async def docs_script() -> Response:
        return FileResponse(script, headers=_FOR_EVER, media_type="text/javascript")

    @app.get(STYLE_PATH, include_in_schema=False)
    async def docs_style() -> Response:
        return FileResponse(style, headers=_FOR_EVER, media_type="text/css")


def _address(path: str, content: bytes) -> str:
    return f"{path.removeprefix('/')}?v={hashlib.sha256(content).hexdigest()[:12]}"
