"""Who imports whom, as docs/architecture.md draws it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "models", "retrieval", "datastore_build", "training", "evaluation")
COMMANDS = {"app/cli.py", "app/commands"}  # the command line may call what the service never needs

ALLOWED = {
    "app": {"models", "retrieval"},
    "app's commands": {"models", "retrieval", "datastore_build", "training", "evaluation"},
    "evaluation": {"training", "models", "retrieval"},
    "training": {"models", "retrieval"},
    "datastore_build": {"retrieval", "models.bundle"},
    "models": {"retrieval"},
    "models.fusion": set(),
    "retrieval": set(),
}


def _owner(path: str) -> str:
    if path in COMMANDS or any(path.startswith(f"{folder}/") for folder in COMMANDS):
        return "app's commands"
    return "models.fusion" if path.startswith("models/fusion/") else path.split("/")[0]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _is_in(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("owner", ALLOWED)
def test_imports_go_the_way_the_map_says(owner: str) -> None:
    own = {"app"} if owner == "app's commands" else {owner}
    modules = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    modules = [path for path in modules if _owner(path.relative_to(ROOT).as_posix()) == owner]
    assert modules
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in modules
        for module in _imports(path)
        if _is_in(module, set(PACKAGES)) and not _is_in(module, own | ALLOWED[owner])
    ]
    assert wrong == []
