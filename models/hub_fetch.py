"""Models of the Hub into this machine's cache: named once by a branch, from then on by their commit.

A connection that breaks off is taken up at the byte where it stopped; a program that was ended, at the file.
What is in the cache is not fetched again. With HF_HUB_OFFLINE=1, or without a connection, the cache is all
there is. Of a repository only configuration, vocabularies and weights in safetensors are fetched; never code,
never pickles.
"""

import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.hub_files import cached_file, hub_library
from models.hub_weights import CONFIG
from models.manifest import HUB_FILE_TYPES, HubReference, record_file
from retrieval.errors import BundleError, InvalidRequestError

DEFAULT_REVISION = "main"
# Other weights in a repository are in other formats, or of other precision.
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
# Modules of sentence-transformers. Other folders hold the same weights for other programs.
_MODULE_FILES = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")

Told = Callable[[str], None]


def recipes() -> dict[str, dict[str, str]]:
    """The models of each bundle that is known by name: `vision` and `language`."""
    text = resources.files(__package__).joinpath("hub_recipes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def parse_source(source: str) -> tuple[str, str]:
    """`owner/model` or `owner/model@revision` → repository and revision."""
    repo, _, revision = source.partition("@")
    return repo, revision or DEFAULT_REVISION


def pin(source: str, tell: Told = lambda _: None) -> HubReference:
    """A reference to what a repository holds now, its files in the cache.

    Args:
        source: `owner/model` or `owner/model@revision`; a branch or tag becomes the commit it names now.
        tell: called with one line before each download.

    Raises:
        BundleError: no such repository or revision, it cannot be reached and is not in the cache, or it has
            no weights in safetensors.
    """
    repo, revision = parse_source(source)
    hub = hub_library()
    if hub.constants.HF_HUB_OFFLINE:
        return _cached(repo, revision)
    try:
        # By the branch's name, so that the cache knows what it stands for when there is no connection.
        config = Path(hub.hf_hub_download(repo, CONFIG, revision=revision))
        commit = config.parent.name
        info = hub.HfApi().model_info(repo, revision=commit)
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise BundleError(f"{repo}@{revision}: {_first_line(error)}") from error
    except (OSError, _connection_errors()) as error:
        try:
            return _cached(repo, revision)
        except BundleError:
            reason = _first_line(error)
            raise BundleError(f"{repo} cannot be reached, and is not in the cache: {reason}") from error
    names = [sibling.rfilename for sibling in info.siblings or []]
    paths = {name: _fetch(repo, name, commit, tell) for name in names if _wanted(name)}
    return _reference(repo, commit, paths)


def fetch(reference: HubReference, tell: Told = lambda _: None) -> None:
    """Bring the files of a reference into the cache, unless they are there.

    Raises:
        BundleError: they cannot be had.
    """
    for name in reference.files:
        if cached_file(reference.repo, name, reference.revision) is None:
            _fetch(reference.repo, name, reference.revision, tell)


def _fetch(repo: str, name: str, revision: str, tell: Told) -> Path:
    hub = hub_library()
    if (found := cached_file(repo, name, revision)) is not None:
        return found
    tell(f"{repo}: {name}")
    try:
        return Path(hub.hf_hub_download(repo, name, revision=revision))
    except (hub.errors.HfHubHTTPError, OSError, _connection_errors()) as error:
        raise BundleError(f"{name} of {repo} cannot be fetched: {_first_line(error)}") from error


def _cached(repo: str, revision: str) -> HubReference:
    """What the cache has of a repository."""
    try:
        config = cached_file(repo, CONFIG, revision)
    except ValueError as error:  # no name of a repository
        raise BundleError(_first_line(error)) from error
    if config is None:
        raise BundleError(f"{repo}@{revision} is not in the cache: fetch it with paellera bundle pull")
    inside = {path.relative_to(config.parent).as_posix(): path for path in config.parent.rglob("*")}
    paths = {name: path for name, path in inside.items() if _wanted(name)}
    return _reference(repo, config.parent.name, paths)


def _reference(repo: str, revision: str, paths: dict[str, Path]) -> HubReference:
    try:
        return HubReference(
            repo=repo,
            revision=revision,
            files={name: record_file(path) for name, path in sorted(paths.items())},
        )
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise BundleError(f"{repo}@{revision[:12]}: {message}") from error


def _wanted(name: str) -> bool:
    if _MODULE_FILES.fullmatch(name):
        return True
    if "/" in name or name.startswith(".") or not name.endswith(HUB_FILE_TYPES):
        return False
    return not name.endswith(".safetensors") or bool(_WEIGHTS.fullmatch(name))


def find_recipe(name: str) -> dict[str, str]:
    """The models of a bundle known by name.

    Raises:
        InvalidRequestError: none has this name.
    """
    known = recipes()
    if name not in known:
        raise InvalidRequestError(f"{name} is neither a bundle's folder nor one of {', '.join(known)}")
    return known[name]


def _connection_errors() -> Any:
    """What the Hub's client raises when nobody answers."""
    # The base of its own errors, which belongs to the HTTP library that it uses; that has changed before.
    return hub_library().errors.HfHubHTTPError.__bases__[0]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
