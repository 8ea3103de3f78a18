"""Captions retrieved for training photos: those that brute force finds, whatever the blocks and the kills."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import SCENES, caption_id, karpathy_document, write_karpathy, write_photos
from hub_towers import TEXT_LENGTH, save_clip, save_dinov2
from killed_training_data import SEARCH_MOMENTS, extract, kill_runs, search
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from models.vision.hub import load_hub_vision
from retrieval.embedder import Queries
from retrieval.errors import InvalidRequestError
from training.at_size.caption_vectors import CaptionVectors
from training.at_size.neighbour_file import NO_CAPTION, Neighbours, read_neighbours, write_neighbours
from training.at_size.neighbour_search import NOTHING, drop_own, search_captions
from training.at_size.neighbours import main
from training.features import main as extract_main


class GivenVectors:
    """An embedder that gives the text "17" the 17th of some vectors."""

    id = "given"

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors
        self.dimension = vectors.shape[1]
        self.embedded = list[str]()

    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        self.embedded += texts
        if progress is not None:
            progress(len(texts), len(texts))
        return self.vectors[[int(text) for text in texts]]

    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries:
        raise NotImplementedError


def unit_vectors(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    normalised: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("block_shards", [1, 3, 100])
def test_blocks_find_what_brute_force_finds(tmp_path: Path, block_shards: int) -> None:
    photos, texts = unit_vectors(60, 1), unit_vectors(500, 2)
    captions = CaptionVectors(tmp_path, [str(number) for number in range(500)], shard_captions=37)
    captions.embed(GivenVectors(texts))
    seen = list[int]()
    rows = search_captions(
        photos, captions, 15, tmp_path / "found", block_shards=block_shards, progress=seen.append
    )
    expected = np.argsort(-(photos.astype(np.float64) @ texts.T.astype(np.float64)), axis=1)[:, :15]
    assert np.array_equal(rows, expected)
    assert seen[-1] == captions.shards == 14
    # What was found is kept: the second time nothing is searched, nor embedded.
    again = GivenVectors(texts)
    assert captions.embed(again) == 0
    assert again.embedded == []
    photos[:] = 0
    assert np.array_equal(search_captions(photos, captions, 15, tmp_path / "found"), expected)


def test_of_equal_captions_the_first_comes_first(tmp_path: Path) -> None:
    texts = np.repeat(unit_vectors(5, 3), 4, axis=0)  # four of each
    captions = CaptionVectors(tmp_path, [str(number) for number in range(20)], shard_captions=3)
    captions.embed(GivenVectors(texts))
    rows = search_captions(texts[:1], captions, 6, tmp_path / "found", block_shards=1)
    assert rows[0, :4].tolist() == [0, 1, 2, 3]


def test_fewer_captions_than_asked_for(tmp_path: Path) -> None:
    captions = CaptionVectors(tmp_path, ["0", "1"])
    captions.embed(GivenVectors(unit_vectors(2, 4)))
    rows = search_captions(unit_vectors(3, 5), captions, 4, tmp_path / "found")
    assert (np.sort(rows, axis=1) == [NOTHING, NOTHING, 0, 1]).all()
    owners, photos = np.array([0, 1]), np.array([0, 1, 2])
    assert drop_own(rows, owners, photos, 3)[:2].tolist() == [[1, NOTHING, NOTHING], [0, NOTHING, NOTHING]]


def test_a_photos_own_captions_are_dropped_and_the_order_kept() -> None:
    rows = np.array([[4, 0, 3, 1, 2], [0, 1, 4, 5, 3]])
    owners = np.array([0, 0, 1, 1, 2, 2])
    assert drop_own(rows, owners, np.array([0, 1]), 3).tolist() == [[4, 3, 2], [0, 1, 4]]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a Karpathy file, a tiny CLIP, and its features of the photos."""
    folder = tmp_path_factory.mktemp("coco")
    write_photos(folder / "images")
    write_karpathy(folder / "dataset_coco.json")
    save_clip(folder / "clip")
    extract(folder / "clip", folder, folder / "features")
    return folder


def arguments(coco: Path, output: Path, *more: str) -> list[str]:
    given = {"karpathy": coco / "dataset_coco.json", "features": coco / "features", "embedder": coco / "clip"}
    return [*(f"--{name}={value}" for name, value in given.items()), f"--output={output}", *more]


def naive_ranking(coco: Path) -> dict[str, list[str]]:
    """Photo → texts of other photos, best first, by transformers' own model."""
    model = save_clip(coco / "clip-again")
    tokenizer = AutoTokenizer.from_pretrained(coco / "clip")
    ranking = {}
    captions = [(n, text) for n, (split, texts) in SCENES.items() if split != "val" for text in texts]
    with torch.inference_mode():
        vectors = [
            model.get_text_features(
                **tokenizer([text], truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
            ).pooler_output[0]
            for _, text in captions
        ]
        for photo in {number for number, _ in captions}:
            with Image.open(coco / "images" / "val2014" / f"COCO_val2014_{photo:012d}.png") as image:
                query = load_hub_vision(coco / "clip").encode([image]).pooled[0]
            cosines = torch.stack([torch.cosine_similarity(query, vector, dim=0) for vector in vectors])
            best = [captions[i] for i in cosines.sort(descending=True, stable=True).indices.tolist()]
            ranking[str(photo)] = [text for owner, text in best[:7] if owner != photo]
    return ranking


def test_the_command_retrieves_what_the_model_finds_nearest(coco: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "neighbours.arrow"
    assert main(arguments(coco, output, "-k=7", "--keep=4")) == 0
    neighbours = read_neighbours(output)
    texts = {
        caption_id(photo, number): text
        for photo, (_, own) in SCENES.items()
        for number, text in enumerate(own)
    }
    assert neighbours.image_ids == ["11", "12", "13"]
    found = {
        image_id: [texts[caption] for caption in row if caption != NO_CAPTION]
        for image_id, row in zip(
            neighbours.image_ids, neighbours.table(neighbours.image_ids).tolist(), strict=True
        )
    }
    assert found == {photo: ranked[:4] for photo, ranked in naive_ranking(coco).items()}
    assert [path.name for path in output.parent.iterdir()] == ["neighbours.arrow"]


def test_a_run_killed_at_any_moment_goes_on_to_the_same_file(coco: Path) -> None:
    for moment in SEARCH_MOMENTS:
        (coco / moment).mkdir()
    clip, features = coco / "clip", coco / "features"
    kill_runs(clip, coco, features, SEARCH_MOMENTS)
    (coco / "at-once").mkdir()
    whole = search(clip, coco, features, coco / "at-once" / "neighbours.arrow")
    content = (coco / "at-once" / "neighbours.arrow").read_bytes()
    for moment in SEARCH_MOMENTS:
        search(clip, coco, features, coco / moment / "neighbours.arrow")
        files = {path.name: path.read_bytes() for path in (coco / moment).iterdir()}
        assert files == {"neighbours.arrow": content}, moment
    assert whole.caption_ids.shape == (3, 7)


def test_what_was_begun_with_other_captions_is_not_gone_on_with(coco: Path, tmp_path: Path) -> None:
    output = tmp_path / "neighbours.arrow"
    work = tmp_path / "neighbours.arrow.work"
    work.mkdir()
    (work / "made_by.json").write_text("{}")
    (work / "captions-00000.npy").write_bytes(b"of something else")
    assert main(arguments(coco, output)) == 0
    assert len(read_neighbours(output)) == 3


def test_photos_without_a_row_have_no_neighbours(tmp_path: Path) -> None:
    written = Neighbours(["a", "b"], np.array([[3, 4], [5, NO_CAPTION]]), {"embedder": "x"})
    write_neighbours(tmp_path / "n.arrow", written)
    neighbours = read_neighbours(tmp_path / "n.arrow")
    assert neighbours.table(["b", "z", "a"]).tolist() == [[5, -1], [-1, -1], [3, 4]]
    assert neighbours.present(["b", "z"]).tolist() == [True, False]
    assert neighbours.made_by == {"embedder": "x"}


def test_what_does_not_fit_is_refused_with_one_line(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(command: list[str]) -> str:
        assert main(command) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        return message

    output = tmp_path / "neighbours.arrow"
    assert "--keep must be from 1 to k" in error(arguments(coco, output, "--keep=16"))
    assert "neither a folder nor a repository" in error(arguments(coco, output, "--embedder=clip"))
    other: Any = save_clip(tmp_path / "other")
    other.logit_scale.data.fill_(1.0)
    other.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert "they are of clip-" in error(arguments(coco, output, f"--embedder={tmp_path / 'other'}"))

    save_dinov2(tmp_path / "dinov2")
    capsys.readouterr()
    options = [f"--images={coco / 'images'}", f"--karpathy={coco / 'dataset_coco.json'}"]
    features = tmp_path / "dinov2-features"
    extract_main([*options, f"--vision={tmp_path / 'dinov2'}", f"--output={features}"])
    capsys.readouterr()
    command = arguments(coco, output, f"--embedder={tmp_path / 'dinov2'}", f"--features={features}")
    assert "compares no texts" in error(command)

    more = karpathy_document(SCENES | {15: ("train", ["A photo that was not encoded."])})
    karpathy = write_karpathy(tmp_path / "more.json", more)
    assert "no features of image '15'" in error(arguments(coco, output, f"--karpathy={karpathy}"))
    assert not output.exists()

    output.write_bytes(b"something else")
    with pytest.raises(InvalidRequestError, match="not a file of neighbours"):
        read_neighbours(output)
    with pytest.raises(InvalidRequestError, match=r"python -m training\.at_size\.neighbours"):
        read_neighbours(tmp_path / "nowhere.arrow")
