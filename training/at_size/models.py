"""The frozen models of a recipe at size, and which exactly they were: `models.json` in a run's folder.

A model is a folder in the Hub's format, or a repository (`owner/model` or `owner/model@revision`), which is
pinned to a commit when the run begins. A bundle then references that commit, whatever the branch holds later.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from models.hub_fetch import fetch, parse_source, pin
from models.hub_files import cached_file
from models.hub_weights import CONFIG
from models.manifest import HubReference
from retrieval.errors import BundleError, InvalidRequestError
from retrieval.files import replacing

MODELS = "models.json"


class SizedModels(BaseModel):
    """The `[models]` table of a recipe at size: folders, or repositories with or without a revision."""

    model_config = ConfigDict(extra="forbid")

    vision: str  # an image encoder
    language: str  # a causal language model with its tokenizer
    text: str | None = None  # reads captions for retrieval; by default the image encoder's own text side


@dataclass(frozen=True)
class PinnedModel:
    """One that a run uses: a local folder, or files of a repository at one commit."""

    folder: Path | None
    hub: HubReference | None

    @property
    def path(self) -> Path:
        """Where its files are.

        Raises:
            BundleError: they have left the cache.
        """
        if self.folder is not None:
            return self.folder
        assert self.hub is not None
        config = cached_file(self.hub.repo, CONFIG, self.hub.revision)
        if config is None:
            raise BundleError(f"{self.hub.repo} at {self.hub.revision[:12]} is not in the cache any more")
        return config.parent


def pin_models(models: SizedModels, run: Path) -> None:
    """Find or fetch the models, and write down in the run's folder which they are.

    Raises:
        BundleError: one of them cannot be had.
    """
    named = {"vision": models.vision, "language": models.language, "text": models.text}
    found = {name: _pin(source) for name, source in named.items() if source is not None}
    document = {
        name: {"folder": str(one.folder)} if one.hub is None else {"hub": one.hub.model_dump(mode="json")}
        for name, one in found.items()
    }
    run.mkdir(parents=True, exist_ok=True)
    with replacing(run / MODELS) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def pinned_models(run: Path) -> dict[str, PinnedModel]:
    """The models that a run was begun with: `vision`, `language` and, if the recipe names it, `text`.

    Raises:
        InvalidRequestError: the run has not begun, or its record is damaged.
    """
    path = run / MODELS
    try:
        document = json.loads(path.read_bytes())
        return {
            name: PinnedModel(
                Path(document[name]["folder"]) if "folder" in document[name] else None,
                HubReference.model_validate(document[name]["hub"]) if "hub" in document[name] else None,
            )
            for name in ("vision", "language", "text")
            if name in document or name != "text"
        }
    except FileNotFoundError as error:
        raise InvalidRequestError(f"{run} has no {MODELS}: train it first") from error
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidRequestError(f"{path} is damaged: the run cannot go on from it") from error


def fetch_models(run: Path) -> None:
    """Bring what a begun run uses into this machine's cache, unless it is there. Raises as `fetch`."""
    for model in pinned_models(run).values():
        if model.hub is not None:
            fetch(model.hub)


def _pin(source: str) -> PinnedModel:
    if Path(source).is_dir():
        return PinnedModel(Path(source).resolve(), None)
    if "/" not in parse_source(source)[0]:
        raise BundleError(f"{source} is neither a folder nor a repository like owner/model")
    return PinnedModel(None, pin(source))
