"""Trained runs → a bundle folder, whole or as a copy of another bundle with one part replaced.

    python -m training.export --config training/configs/bridge.toml --output bundles/compact

The bridge's recipe names the other two. Then build the bundle's datastore: `make datastore`.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from models.bridges import bridge_settings
from models.bundle import DATASTORE, Bundle
from models.manifest import (
    BridgePart,
    BundleManifest,
    EmbedderPart,
    GenerationDefaults,
    LanguagePart,
    MatcherPart,
    VisionPart,
    record_file,
    require_empty,
    revision_of,
    write_manifest,
)
from models.matcher import Matcher, matcher_settings
from models.prompts.builder import load_templates
from models.quantisation import quantise
from retrieval.errors import PaelleraError
from retrieval.files import replacing
from training.bridge import BridgeRun, new_bridge
from training.checkpoint import load_trained
from training.config import read_config
from training.corpus import read_captions
from training.embedder import EmbedderRun, load_space
from training.files import save_tensors
from training.language import VOCABULARY, LanguageRun

LANGUAGE, BRIDGE, EMBEDDER = "language.safetensors", "bridge.safetensors", "embedder.safetensors"
MATCHER = "matcher.safetensors"

LICENCE = (
    "Apache-2.0 for code and configuration. The weights were trained on Flickr8k and Flickr30k captions and "
    "Flickr8k photos, which are for non-commercial research and education; see README.md in this folder."
)
PROVENANCE = (
    "Language model: Flickr8k (training split) and Flickr30k captions, text only. Embedder "
    "and bridge: Flickr8k training photos with their captions; the embedder also ImageNet's class names with "
    "the classifier of EfficientNet-Lite2. Starter datastore: scenes written for this project."
)


def _bfloat16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor.to(torch.int32)
        for name, tensor in weights.items()
    }


def export(config: BridgeRun, output: Path, generation: GenerationDefaults) -> BundleManifest:
    """Write weights, vocabulary and manifest into `output`; its model card and datastore are left alone.

    Raises:
        InvalidRequestError: a run has no checkpoint yet.
    """
    language = read_config(config.language, LanguageRun)
    embedder = read_config(config.embedder, EmbedderRun)
    output.mkdir(parents=True, exist_ok=True)
    save_tensors(quantise(load_trained(language)), output / LANGUAGE)
    save_tensors(_bfloat16(load_trained(config)), output / BRIDGE)
    space = load_space(embedder)
    save_tensors(_bfloat16(space.state_dict()), output / EMBEDDER)
    with replacing(output / VOCABULARY) as temporary:
        shutil.copyfile(language.output / VOCABULARY, temporary)
    files = {name: record_file(output / name) for name in (LANGUAGE, VOCABULARY, BRIDGE, EMBEDDER)}
    manifest = BundleManifest(
        format_version=1,
        name=output.name,
        revision=revision_of(files),
        languages=_languages(config),
        vision=VisionPart(kind="efficientnet-lite2"),
        embedder=EmbedderPart(
            kind="e5-shared-space",
            id=f"e5-shared-space-{files[EMBEDDER].sha256[:12]}",
            file=EMBEDDER,
            d_hidden=space.config.d_hidden,
            dimension=space.config.dimension,
            text_languages=space.config.text_languages,
            vocabulary=space.config.vocabulary,
            d_token=space.config.d_token,
            bank=space.config.bank,
        ),
        language=LanguagePart(
            kind="xglm",
            file=LANGUAGE,
            vocabulary=VOCABULARY,
            **language.shape.model_dump(exclude={"dropout"}),
        ),
        bridge=bridge_part(config, new_bridge(config, language.shape)),
        generation=generation,
        licence=LICENCE,
        provenance=PROVENANCE,
        files=files,
    )
    write_manifest(manifest, output)
    return manifest


def _languages(config: BridgeRun) -> tuple[str, ...]:
    """Those that the bridge was trained in and that have a prompt."""
    return tuple(
        sorted({row.language for row in read_captions(config.data.captions)} & load_templates().keys())
    )


def bridge_part(config: BridgeRun, bridge: Any) -> BridgePart:
    """What a manifest says of a recipe's bridge."""
    return BridgePart(kind=config.shape.kind, file=BRIDGE, **bridge_settings(bridge))


def matcher_part(matcher: Matcher) -> MatcherPart:
    """What a manifest says of a matcher."""
    return MatcherPart(file=MATCHER, **matcher_settings(matcher))


def replace_part(
    source: Bundle,
    output: Path,
    name: str,
    part: BaseModel,
    weights: Mapping[str, Tensor],
    provenance: str,
    generation: GenerationDefaults | None = None,
) -> BundleManifest:
    """Write a copy of a bundle in which one part is another, or is new; its datastore comes along.

    The model card does not: what it reports is of the source.

    Args:
        output: a folder that does not exist yet or is empty.
        name: which part, as the manifest calls it.
        part: its record there; `part.file` is where the weights go. It has no other file.
        weights: saved as bfloat16.
        provenance: how it was trained, added to what the source says.
        generation: in place of the source's, if given.

    Raises:
        InvalidRequestError: there is something in `output`.
    """
    require_empty(output)
    output.mkdir(parents=True, exist_ok=True)
    document = source.manifest.model_dump(mode="json")
    record = part.model_dump(mode="json")
    left_out = {record["file"], (document.get(name) or record)["file"]}
    files = {file: entry for file, entry in source.manifest.files.items() if file not in left_out}
    for file in files:
        shutil.copyfile(source.path / file, output / file)
    save_tensors(_bfloat16(weights), output / record["file"])
    files[record["file"]] = record_file(output / record["file"])
    if name != "embedder" and (source.path / DATASTORE).is_dir():  # another embedder could not search it
        shutil.copytree(source.path / DATASTORE, output / DATASTORE)
    changes = {
        "name": output.absolute().name,
        "revision": revision_of(files),
        name: record,
        "generation": (generation or source.manifest.generation).model_dump(mode="json"),
        "provenance": f"{source.manifest.provenance} {provenance}",
        "files": {file: entry.model_dump(mode="json") for file, entry in files.items()},
    }
    manifest = BundleManifest.model_validate({**document, **changes})
    write_manifest(manifest, output)  # last: before that the folder is no bundle
    return manifest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.export", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="the bridge's recipe")
    parser.add_argument(
        "--output", type=Path, required=True, help="the bundle's folder; its name names the bundle"
    )
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--length-penalty", type=float, default=0.0)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument(
        "--min-score", type=float, default=0.0, help="cosine under which a neighbour is not used"
    )
    parser.add_argument("--min-score-new", type=float, default=0.0, help="the same for a wholly new photo")
    parser.add_argument(
        "--copy-weight", type=float, default=0.3, help="share of the neighbours' words at wholly new photos"
    )
    options = parser.parse_args(arguments)
    generation = GenerationDefaults(
        max_tokens=options.max_tokens,
        min_tokens=3,
        beams=options.beams,
        length_penalty=options.length_penalty,
        no_repeat_ngram=2,
        neighbours=options.neighbours,
        min_score=options.min_score,
        min_score_new=options.min_score_new,
        copy_weight=options.copy_weight,
    )
    manifest = export(read_config(options.config, BridgeRun), options.output, generation)
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    sys.stderr.write(f"{manifest.name} {manifest.revision}: {size:.1f} MB in {options.output}\n")


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
