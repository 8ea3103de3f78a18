"""Settings that people write, checked into a config."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from models.shapes import build_config


@dataclass(frozen=True)
class Shape:
    width: int
    given: int
    layers: int = 2
    share: float = 0.5
    kind: Literal["round", "square"] = "round"
    deep: bool = False

    def __post_init__(self) -> None:
        if self.width % self.given:
            raise ValueError(f"{self.given} does not divide {self.width}")


def build(**settings: Any) -> Shape:
    return build_config(Shape, settings, {"given": 4}, part="thing", may_be_zero={"layers"})


def test_what_is_not_set_has_its_default() -> None:
    assert build(width=8) == Shape(width=8, given=4)
    assert build(width=8, layers=0, share=0.0, kind="square", deep=False).layers == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "thing: width: Field required"),
        ({"width": 8, "height": 2, "depth": 1}, "a thing has no setting depth, height"),
        ({"width": 8, "given": 2}, "a thing has no setting given"),
        ({"width": 0}, "thing: width must not be 0"),
        ({"width": 8, "layers": -1}, "thing: layers must not be -1"),
        ({"width": 8, "deep": 8}, "thing: deep: Input should be a valid boolean, unable to interpret input"),
        ({"width": 8, "kind": "flat"}, "thing: kind: Input should be 'round' or 'square'"),
        ({"width": 9}, "thing: 4 does not divide 9"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its message is compared as a whole
        build(**settings)
    assert str(caught.value) == message
