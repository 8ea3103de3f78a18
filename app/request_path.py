"""The path of a request as the routes know it."""

from starlette.types import Scope


def request_path(scope: Scope) -> str:
    """Without the path below which a proxy or another application shows the service (`root_path`)."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
