import pytest

from models.language.words import group_words


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["▁A", "▁long", "-", "haired", "▁cat", "."], ["A", "long-haired", "cat."]),
        (["▁", "قط", "ة", "▁سوداء", "."], ["قطة", "سوداء."]),
        (["▁", "ब", "िल", "्", "ली", "▁है", "।"], ["बिल्ली", "है।"]),
        (["▁", "一杯", "咖", "啡", "。"], ["一杯", "咖", "啡。"]),
        (["▁", "一只", "iPhone", "手机", "。"], ["一只", "iPhone", "手机。"]),
        (["ca", "t"], ["cat"]),  # a sequence need not begin with a space
        (["▁", ".", "▁a"], [".", "a"]),
        ([], []),
    ],
)
def test_pieces_become_words(pieces: list[str], words: list[str]) -> None:
    groups = group_words(pieces)
    assert [i for group in groups for i in group] == list(range(len(pieces)))
    assert ["".join(pieces[i] for i in group).strip("▁") for group in groups] == words
