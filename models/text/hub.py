"""Text encoders in the Hub's format that write into the space of an image encoder.

CLIP and SigLIP bring their own. Others were trained to say in many languages what CLIP's says in English:
those of sentence-transformers (clip-ViT-B-32-multilingual-v1) and those of M-CLIP.
"""

from pathlib import Path

from models.hub_weights import read_config
from models.text.image_text import CLASSES, ImageTextTower
from models.text.mclip import MODEL_TYPE, MultilingualClipTower
from models.text.sentence_transformer import MODULES, SentenceTower
from retrieval.errors import BundleError
from retrieval.image_text import TextTower


def load_hub_text(folder: Path) -> TextTower:
    """The text encoder in a folder, frozen; of an image-text model its text side.

    Raises:
        BundleError: transformers is missing, another kind of model, or it is not whole.
    """
    if (folder / MODULES).is_file():
        return SentenceTower(folder)
    kind = str(read_config(folder).get("model_type"))
    if kind == MODEL_TYPE:
        return MultilingualClipTower(folder)
    if kind in CLASSES:
        return ImageTextTower(folder, kind)
    raise BundleError(
        f"{folder} holds a {kind!r}, which compares no texts with photos: take {', '.join(CLASSES)}, "
        f"{MODEL_TYPE}, or a model of sentence-transformers"
    )
