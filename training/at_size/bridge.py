"""Recipe at size: a bridge between an image encoder and a language model of the Hub, trained on COCO-35.

As PAELLA is trained (Ramos et al., Findings of NAACL 2024, section 4): the models are frozen, and only the
bridge has gradients and optimiser state. The image encoder ran ahead (training/features.py), and the language
model's head is computed at the positions of captions alone.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from rich.console import Console
from torch import Tensor, nn

from models.bridges import build_bridge
from models.hub_parts import load_language_folder
from models.language.hub import HubLanguageModel
from models.language.hub_tokenizer import HubTokenizer
from models.language.xglm import XGLM
from models.manifest import BridgeKind
from models.prompts.builder import PromptBuilder, load_templates
from retrieval.errors import InvalidRequestError
from training.at_size.bridge_dropout import DroppedBridge
from training.at_size.caption_data import SizedData, read_caption_data
from training.at_size.examples import SizedExamples
from training.at_size.models import PinnedModel, SizedModels, fetch_models, pin_models, pinned_models
from training.at_size.neighbour_file import read_neighbours
from training.at_size.step_stream import StepStream
from training.feature_cache import FeatureCache
from training.loop import require_runnable, train
from training.mixed_precision import DTYPES
from training.photo_encoders import hub_encoder_id
from training.processes import Processes, launched_processes
from training.run_config import RunConfig
from training.sequences import IGNORE, Batch

REJECTED = "rejected.jsonl"  # in a run's folder: captions that cannot be used, each with the reason


class HubBridgeShape(BaseModel):
    """Which bridge, and the settings of its config that follow from neither of the models."""

    model_config = ConfigDict(extra="allow")  # they are checked when it is built

    kind: BridgeKind = "cross_attention"

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class HubBridgeRun(RunConfig):
    """`training/configs/paella.toml`."""

    models: SizedModels
    data: SizedData
    shape: HubBridgeShape = HubBridgeShape()
    # Examples of a step, over all processes; divided among its `batches_per_step`.
    batch_size: PositiveInt = 64
    # Of the language model while the bridge is trained into it, as its own configuration says how much.
    dropout: bool = True
    bridge_dropout: float = Field(default=0.0, ge=0, lt=1)  # of what the bridge adds in each layer
    gradient_checkpointing: bool = False  # a quarter of the memory, and half more work
    end: str | None = None  # text of the token that ends a caption; None: the tokenizer's end of sequence
    # The bundle offers all languages that have a prompt, not only those trained in: by retrieval alone.
    every_language: bool = False

    @model_validator(mode="after")
    def _batches_divide_a_step(self) -> Self:
        if self.batch_size % self.batches_per_step:
            raise ValueError("batch_size must be a multiple of batches_per_step")
        return self


@dataclass(frozen=True)
class HubBridgeMaterial:
    """What a bridge is trained on, and into."""

    language_model: XGLM | HubLanguageModel  # frozen
    prompts: PromptBuilder
    features: FeatureCache
    examples: SizedExamples


class HubBridgeRecipe:
    """Loss on the captions alone.

    Args:
        device: of the models; batches are brought there.
    """

    def __init__(
        self,
        bridge: nn.Module,
        material: HubBridgeMaterial,
        stream: StepStream,
        device: torch.device,
        bridge_dropout: float = 0.0,
    ) -> None:
        self.trained: Any = bridge
        self.stream = stream
        self._model = material.language_model
        self._features = material.features
        self._device = device
        self._dropped: Any = DroppedBridge(bridge, bridge_dropout) if bridge_dropout else bridge

    def loss(self, batch: Batch) -> Tensor:
        batch = batch.to(self._device)
        memory = self._features.tokens(batch.image_ids).to(self._device, torch.float32)  # as the weights
        mask = self._features.mask(batch.image_ids)
        state = self.trained.prepare(memory, None if mask is None else mask.to(self._device))
        if isinstance(self._model, XGLM):
            hidden = self._model(
                batch.input_ids, batch.positions, batch.mask, bridge=self._dropped, bridge_state=state
            )
        else:  # a row has one caption, so that its text is plain, and padded on the right
            hidden = self._model(batch.input_ids, bridge=self._dropped, bridge_state=state)
        learnt = batch.labels != IGNORE
        # Not the scores of all positions: over XGLM's 256,008 tokens they would not fit in memory.
        return F.cross_entropy(self._model.logits(hidden[learnt]).float(), batch.labels[learnt])

    def weight(self, batch: Batch) -> float:
        return batch.num_labels


def train_hub_bridge(config: HubBridgeRun, *, resume: bool, processes: Processes | None = None) -> Any:
    """Train the bridge into `config.output`.

    Args:
        processes: those that train together; by default those that a launcher started, or this one.

    Returns:
        The bridge, in evaluation mode.

    Raises:
        InvalidRequestError: a file is missing, or the settings do not fit the material or the device.
        BundleError: a model cannot be had or loaded.
    """
    processes = processes or launched_processes()
    require_runnable(config, resume=resume, processes=processes)
    if processes.is_main:  # the others find models and captions ready
        if resume:
            fetch_models(config.output)
        else:
            pin_models(config.models, config.output)
        config.output.mkdir(parents=True, exist_ok=True)
        for line in read_caption_data(config.data, config.output / REJECTED).report:
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    processes.wait()
    material = prepare_hub_bridge(config, pinned_models(config.output), processes.device)
    if processes.is_main and material.examples.left_out:
        left_out = f"{material.examples.left_out:,} photos have no features or no neighbours: left out"
        Console(stderr=True).print(left_out, highlight=False)
    return train_hub_bridge_on(material, config, resume=resume, processes=processes)


def prepare_hub_bridge(
    config: HubBridgeRun, models: dict[str, PinnedModel], device: torch.device
) -> HubBridgeMaterial:
    """Load what a recipe names.

    Raises:
        InvalidRequestError: a file is missing, or was made with another model.
        BundleError: a model cannot be loaded.
    """
    features = FeatureCache(config.data.features, hub_encoder_id(models["vision"].path))
    folder = models["language"].path
    language = load_language_folder(folder, DTYPES[config.precision]).to(device)
    prompts = PromptBuilder(HubTokenizer(folder, language.config.vocab_size, config.end), load_templates())
    captions = read_caption_data(config.data)
    neighbours = read_neighbours(config.data.neighbours)
    examples = SizedExamples(captions, neighbours, prompts, config.data, features.image_ids())
    return HubBridgeMaterial(language, prompts, features, examples)


def train_hub_bridge_on(
    material: HubBridgeMaterial, config: HubBridgeRun, *, resume: bool, processes: Processes
) -> Any:
    """As `train_hub_bridge`, with what it needs loaded already."""
    torch.manual_seed(config.seed)
    first = material.features.image_ids()[:1]
    width = material.features.tokens(first).shape[2]
    if config.shape.kind == "visual_prefix" and material.features.mask(first) is not None:
        raise InvalidRequestError(
            "a visual_prefix needs photos with equally many visual tokens; those of this image encoder differ"
        )
    bridge = new_hub_bridge(config, width, material.language_model.config).to(processes.device)
    stream = StepStream(
        material.examples.draw,
        size=config.batch_size,
        batches=config.batches_per_step,
        seed=config.seed,
        end=material.prompts.tokenizer.special.end,
    )
    material.language_model.requires_grad_(False).train(config.dropout)
    if config.gradient_checkpointing:
        material.language_model.recompute_layers()
    recipe = HubBridgeRecipe(bridge, material, stream, processes.device, config.bridge_dropout)
    train(recipe, config, resume=resume, processes=processes)
    return bridge


def new_hub_bridge(config: HubBridgeRun, d_memory: int, language: Any) -> Any:
    """The bridge of a recipe with fresh weights, between visual tokens of a width and a language model.

    Raises:
        InvalidRequestError: its settings do not fit.
    """
    if "d_memory" in config.shape.settings:
        raise InvalidRequestError("leave d_memory out of [shape]: it follows from the image encoder")
    try:
        return build_bridge(config.shape.kind, {**config.shape.settings, "d_memory": d_memory}, language)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
