"""What the documents tell people to type: commands parse, modules and targets exist, links lead somewhere."""

import importlib.util
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain

from app.cli import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
OURS = re.compile(r"(^|[|;&]\s*)(\.venv/bin/)?(paellera|python|make)\s")
SHELL_OPERATORS = {"|", "||", "&&", ";", ">", ">>", "<", "&"}


def fenced(path: Path, *kinds: str) -> Iterator[str]:
    """The contents of a document's fenced blocks of these kinds; "" is a block that names none."""
    kind, lines = None, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("```"):
            lines.append(line)
        elif kind is None:
            kind, lines = line[3:], []
        else:
            if kind in kinds:
                yield "\n".join(lines)
            kind = None


def every_command(program: str) -> list[tuple[str, list[str]]]:
    """Document and arguments of each command of that program, wherever in a line it stands."""
    found = []
    for path in DOCUMENTS:
        for block in fenced(path, "console", "sh", ""):
            for line in filter(OURS.search, block.replace("\\\n", " ").splitlines()):
                lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
                lexer.whitespace_split = True
                words: list[str] = []
                for word in [*lexer, ";"]:
                    if word not in SHELL_OPERATORS:
                        words.append(word)
                        continue
                    if words and Path(words[0]).name == program:
                        found.append((path.name, words[1:]))
                    words = []
    return found


def targets() -> set[str]:
    """What can be made."""
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(rules)


def parse(arguments: list[str]) -> None:
    """Parses a command line of ours with its own parser, and runs nothing. Raises typer.TyperException."""
    command: Any = typer.main.get_command(cli)  # Typer has no public type for a command
    path = "paellera"
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command, path = command.commands[arguments[0]], f"{path} {arguments[0]}"
        arguments = arguments[1:]
    context = command.make_context(path, list(arguments))
    if hasattr(command, "commands") and arguments:
        command.resolve_command(context, list(arguments))  # raises, for there is no such command


@pytest.mark.parametrize(
    ("document", "arguments"),
    every_command("paellera"),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_commands_in_the_documents_parse(document: str, arguments: list[str]) -> None:
    parse(arguments)


@pytest.mark.parametrize(
    "line", ["caption", "caption a.jpg --langauge es", "caption a.jpg -n 99", "capture a.jpg"]
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(typer.TyperException):
        parse(line.split())


def test_modules_and_targets_in_the_documents_exist() -> None:
    modules = [words[1] for _, words in every_command("python") if words[:1] == ["-m"]]
    assert "training.export" in modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    named = [target for _, words in every_command("make") for target in words if "=" not in target]
    assert "demo" in named
    assert sorted(set(named) - targets()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (document.parent / link).exists()] == []


def test_the_readme_shows_python_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class FoundBundle:
        def load_captioner(self) -> EchoCaptioner:
            return EchoCaptioner()

    monkeypatch.setattr("models.bundle.Bundle.open", lambda path: FoundBundle())
    monkeypatch.chdir(tmp_path)
    Path("holiday.jpg").write_bytes(encode(plain(), "JPEG"))
    (code,) = fenced(ROOT / "README.md", "python")
    Path("example.py").write_text(code, encoding="utf-8")
    runpy.run_path("example.py")
    output, _ = capsys.readouterr()
    assert "en picture" in output
    assert "صورة 3" in output
