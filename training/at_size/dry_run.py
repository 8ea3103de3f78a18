"""Tries a recipe at size out: every step from photos to a caption, on drawn photos and tiny models.

What the recipe says of models and data is replaced; the shape of its bridge, how it is trained and what of it
becomes a bundle stay. The steps are the commands that docs/training.md has for real data.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from models.bundle import DATASTORE, Bundle, default_bundle
from models.captions import Caption, CaptionSettings
from models.manifest import require_empty
from models.prompts.builder import load_templates
from retrieval.errors import InvalidRequestError, PaelleraError
from training import features
from training.at_size import neighbours
from training.at_size.bridge import HubBridgeRun, train_hub_bridge
from training.at_size.caption_data import SizedData
from training.at_size.cpu_processes import run_processes
from training.at_size.export import export_hub
from training.at_size.models import SizedModels
from training.at_size.tiny_coco import TinyCoco, make_tiny_coco
from training.at_size.tiny_models import LANGUAGE, VISION, tiny_models
from training.checkpoint import load_trained, logged_losses
from training.dry_run import STEPS
from training.processes import Processes

_ROWS = 4  # of a batch
_CAPTIONED_IN = "en"  # the caption, if the recipe's bundle writes it


@dataclass(frozen=True)
class HubDryRun:
    """What was done."""

    recipe: str
    part: str  # what was trained
    parameters: int
    processes: int
    precision: str
    languages: tuple[str, ...]  # trained in
    losses: list[float]  # of each step
    caption: Caption  # of the first photo
    folder: Path | None  # where everything is; None if it was not kept

    def lines(self) -> list[str]:
        """The same for people."""
        losses = " → ".join(f"{loss:.3f}" for loss in self.losses)
        count, how = len(self.losses), f"{self.precision}; {', '.join(self.languages)}"
        who = "1 process" if self.processes == 1 else f"{self.processes} processes"
        kept = "nothing was kept (--output DIR keeps everything)"
        if self.folder is not None:
            where = f"HF_HUB_CACHE={self.folder / 'models'} HF_HUB_OFFLINE=1"
            command = f"paellera caption PHOTO --bundle {self.folder / 'bundle'}"
            kept = f"all is in {self.folder}: {where} {command}"
        return [
            f"{self.recipe}: {self.part}, {self.parameters:,} parameters trained, the rest frozen",
            f"{count} steps of {who} on drawn photos ({how}), loss {losses}",
            f"a drawn photo, captioned with it ({self.caption.language}): {self.caption.text}",
            kept,
        ]


def dry_run_hub_bridge(config: HubBridgeRun, *, processes: int = 1, output: Path | None = None) -> HubDryRun:
    """Try out a recipe at size, on the CPU.

    Args:
        processes: that train together.
        output: a new folder for data, models, run and bundle; by default nothing is kept.

    Raises:
        InvalidRequestError: the recipe's bridge does not fit, or there is something in `output`.
        BundleError, DatastoreError: the default bundle, whose captions are used, is missing or damaged.
        PaelleraError: a step failed.
    """
    with _folder(output) as folder:
        data = make_tiny_coco(Bundle.open(default_bundle()), folder / "data")
        run = _shortened(config, data, folder, processes)
        with tiny_models(folder / "models", _letters(data)):
            _prepare(run, data)
            if processes == 1:
                train_hub_bridge(run, resume=False, processes=Processes())
            else:
                run_processes(processes, partial(train_hub_bridge, run, resume=False))
            bundle = folder / "bundle"
            export_hub(run, bundle)
            _build_datastore(data, bundle)
            caption = _caption(bundle, data)
        return HubDryRun(
            config.output.name,
            f"{config.shape.kind} bridge",
            sum(weight.numel() for weight in load_trained(run).values()),
            processes,
            run.precision,
            tuple(run.data.languages),
            logged_losses(run),
            caption,
            output,
        )


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        require_empty(output)
        output.mkdir(parents=True, exist_ok=True)
        yield output.resolve()
        return
    with TemporaryDirectory(prefix="paellera-") as folder:
        yield Path(folder)


def _shortened(config: HubBridgeRun, data: TinyCoco, folder: Path, processes: int) -> HubBridgeRun:
    """The same recipe for a few steps on the CPU."""
    languages = [language for language in config.data.languages if language in data.languages]
    if not languages:
        raise InvalidRequestError(
            f"a dry run has captions in {', '.join(data.languages)} alone, the recipe asks for none of them"
        )
    tiny = SizedData(
        karpathy=data.karpathy,
        translations=[data.translations] if config.data.translations else [],
        captions=None if config.data.captions is None else folder / "captions.arrow",
        languages=languages,
        features=folder / "features",
        neighbours=folder / "neighbours.arrow",
        max_caption_tokens=config.data.max_caption_tokens,
        k=config.data.k,
    )
    # As many batches as there are processes, if the recipe does not have several for each of them.
    batches = -(-config.batches_per_step // processes) * processes
    few = {
        "output": folder / "run",
        "steps": STEPS,
        "log_every": 1,
        "checkpoint_every": STEPS,
        "batches_per_step": batches,
        "batch_size": _ROWS * batches,
        "precision": "bf16" if config.precision == "fp16" else config.precision,
        "models": SizedModels(vision=VISION, language=LANGUAGE),
        "data": tiny,
        "end": None,
    }
    return config.model_copy(update=few)


def _letters(data: TinyCoco) -> list[str]:
    prompts = [f"{template.opening} {template.closing}" for template in load_templates().values()]
    return [*data.texts, *prompts]


def _prepare(run: HubBridgeRun, data: TinyCoco) -> None:
    """Visual tokens of the photos, and which captions are retrieved for them."""
    karpathy = ["--karpathy", str(data.karpathy)]
    made = ["--output", str(run.data.features)]
    if features.main([*karpathy, "--images", str(data.images), "--vision", VISION, *made]):
        raise PaelleraError("the photos could not be encoded")
    source = ["--features", str(run.data.features), "--embedder", VISION]
    if neighbours.main([*karpathy, *source, "--output", str(run.data.neighbours)]):
        raise PaelleraError("the photos' neighbours could not be found")


def _build_datastore(data: TinyCoco, bundle: Path) -> None:
    """As a process of its own, because training does not depend on what builds datastores."""
    output = ["--bundle", str(bundle), "--output", str(bundle / DATASTORE)]
    command = [sys.executable, "-m", "datastore_build", "build", str(data.captions), *output]
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PaelleraError(f"the datastore could not be built: {done.stderr.strip().splitlines()[-1:]}")


def _caption(bundle: Path, data: TinyCoco) -> Caption:
    """What the bundle says of the first photo."""
    captioner = Bundle.open(bundle).load_captioner()
    language = _CAPTIONED_IN if _CAPTIONED_IN in captioner.languages else captioner.languages[0]
    with Image.open(data.first) as file:
        image = file.convert("RGB")
    return captioner.caption([image], CaptionSettings((language,))).images[0].captions[0]
