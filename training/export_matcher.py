"""A trained matcher into a copy of a bundle, calibrated.

    python -m training.export_matcher --config training/configs/matcher.toml \\
        --bundle bundles/compact --output bundles/matched

The model card does not come along: what it reports is of the bundle without that matcher.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.bundle import Bundle
from models.manifest import BundleManifest, require_empty
from models.matcher import Matcher
from models.weights import load_weights
from retrieval.embedder import EmbedderConfig
from retrieval.errors import InvalidRequestError, PaelleraError
from training.calibration import Calibration, calibrate
from training.checkpoint import load_trained
from training.config import read_config
from training.export import matcher_part, replace_part
from training.matcher import MatcherRun, new_matcher


def load_matcher(config: MatcherRun) -> Matcher:
    """The trained matcher of a run."""
    matcher = new_matcher(config, EmbedderConfig.d_text)
    load_weights(matcher, load_trained(config), "matcher")
    return matcher.eval().requires_grad_(False)


def add_matcher(
    source: Bundle, output: Path, config: MatcherRun, candidates: int
) -> tuple[BundleManifest, Calibration]:
    """Write a copy of a bundle with a run's matcher, calibrated on half of the development photos.

    Args:
        candidates: neighbours that it ranks anew before the best go into the prompt.

    Raises:
        InvalidRequestError: the run is not finished, or there is something in `output`.
    """
    require_empty(output)
    if candidates <= source.manifest.generation.neighbours:
        raise InvalidRequestError(
            f"candidates must be more than the {source.manifest.generation.neighbours} neighbours of a prompt"
        )
    matcher = load_matcher(config)
    calibration = calibrate(config, matcher)
    calibration.apply(matcher)
    generation = source.manifest.generation.model_copy(
        update={"candidates": candidates, "match_weight": calibration.match_weight}
    )
    provenance = (
        "Matcher: Flickr8k training photos with their captions; calibrated on "
        f"{calibration.photos} photos of the development split."
    )
    manifest = replace_part(
        source, output, "matcher", matcher_part(matcher), matcher.state_dict(), provenance, generation
    )
    return manifest, calibration


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.export_matcher", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="the matcher's recipe")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle that is copied")
    parser.add_argument("--output", type=Path, required=True, help="a new folder; its name names the bundle")
    parser.add_argument("--candidates", type=int, default=12, help="neighbours that are ranked anew")
    options = parser.parse_args(arguments)
    config = read_config(options.config, MatcherRun)
    manifest, found = add_matcher(Bundle.open(options.bundle), options.output, config, options.candidates)
    sys.stderr.write(
        f"{manifest.name} {manifest.revision} in {options.output}: logits times {found.scale:.3f} "
        f"{found.bias:+.3f}, match_weight {found.match_weight:.4f}\n"
    )


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
