"""A bridge that was trained at size → a bundle that references its models on the Hub.

    python -m training.at_size.export --config training/configs/paella.toml --output bundles/paella

Then build the bundle's datastore: `paellera datastore build SOURCE --bundle DIR --output DIR/datastore`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.hub_import import HubModels, hub_shapes, write_hub_bundle
from models.manifest import BundleManifest, HubReference, require_empty
from models.prompts.builder import load_templates
from models.weights import load_weights
from retrieval.errors import InvalidRequestError, PaelleraError
from retrieval.languages import match
from training.at_size.bridge import HubBridgeRun, new_hub_bridge
from training.at_size.models import PinnedModel, pinned_models
from training.checkpoint import load_trained
from training.config import read_config


def export_hub(config: HubBridgeRun, output: Path, languages: Sequence[str] = ()) -> BundleManifest:
    """Write the bundle.

    Args:
        output: a folder that does not exist yet or is empty; its name names the bundle.
        languages: that the bundle offers; by default those that the recipe says.

    Raises:
        InvalidRequestError: the run is not finished, there is something in `output`, or a model is a local
            folder, which nobody else would find.
        BundleError: a model is not in the cache any more.
    """
    require_empty(output)
    weights = load_trained(config)
    pinned = pinned_models(config.output)
    models = HubModels(**{name: _reference(name, model) for name, model in pinned.items()})
    shapes = hub_shapes(models)
    bridge = new_hub_bridge(config, shapes.width, shapes.language)
    load_weights(bridge, weights, "bridge")
    known = load_templates()
    offered = known if config.every_language else [tag for tag in config.data.languages if tag in known]
    return write_hub_bundle(
        config.shape.kind,
        bridge,
        models,
        shapes,
        output,
        languages=sorted({match(tag, sorted(known)) for tag in languages} or offered),
        templates={},
        end=config.end,
        provenance=_provenance(config),
    )


def _reference(name: str, model: PinnedModel) -> HubReference:
    if model.hub is None:
        raise InvalidRequestError(
            f"the run's {name} is the folder {model.folder}: a bundle names its models by their "
            "repository, so train with that"
        )
    return model.hub


def _provenance(config: HubBridgeRun) -> str:
    sources = ", ".join(path.name for path in (config.data.karpathy, *config.data.translations))
    return (
        f"Bridge: {config.steps:,} steps of {config.batch_size} examples from {sources}, in "
        f"{', '.join(config.data.languages)}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.at_size.export", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="the recipe")
    parser.add_argument(
        "--output", type=Path, required=True, help="the bundle's folder; its name names the bundle"
    )
    parser.add_argument(
        "--language", action="append", default=[], help="to offer, repeatable; by default as the recipe says"
    )
    options = parser.parse_args(arguments)
    config = read_config(options.config, HubBridgeRun)
    manifest = export_hub(config, options.output, options.language)
    sys.stderr.write(f"{manifest.name} {manifest.revision} in {options.output}\n")


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
