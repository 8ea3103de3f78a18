"""The best and the worst captions of a run, each with its photo, its references and what was retrieved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.captions import LanguageResult, WrittenCaption
from evaluation.references import Photo
from retrieval.datastore import Neighbour


@dataclass(frozen=True)
class Example:
    """One caption. `cider_d` is times 100."""

    language: str
    image_id: str
    photo: Path
    text: str
    cider_d: float
    references: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class LanguageExamples:
    """Of one language, best first and worst first; no caption is in both."""

    language: str
    best: tuple[Example, ...]
    worst: tuple[Example, ...]


def pick_examples(
    results: Sequence[LanguageResult],
    written: Sequence[WrittenCaption],
    photos: Sequence[Photo],
    number: int,
) -> list[LanguageExamples]:
    """The `number` best and worst captions of each language by CIDEr-D, in the first mode that was run.

    Equal scores stand in the order of the photos.
    """
    paths = {photo.image_id: photo.path for photo in photos}
    outputs = {
        (output.caption.language, output.retrieval, output.image_id): output.caption for output in written
    }
    examples = []
    for result in results:
        language, mode = result.references.language, next(iter(result.scores))
        scores = result.scores[mode].image_cider_d
        ranked = sorted(scores, key=lambda image_id: -scores[image_id])

        def example(image_id: str, result: LanguageResult = result, mode: str = mode) -> Example:
            language = result.references.language
            caption = outputs[language, mode, image_id]
            return Example(
                language,
                image_id,
                paths[image_id],
                caption.text,
                result.scores[mode].image_cider_d[image_id],
                tuple(result.references.texts[image_id]),
                caption.neighbours,
            )

        best = ranked[:number]
        worst = ranked[max(len(best), len(ranked) - number) :][::-1]
        examples.append(LanguageExamples(language, tuple(map(example, best)), tuple(map(example, worst))))
    return examples
