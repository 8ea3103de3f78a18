"""Class names stand in the classifier's order; their absence is explained."""

import importlib.metadata

import pytest

from retrieval.errors import InvalidRequestError
from training import imagenet_classes
from training.imagenet_classes import imagenet_class_names


def _has_timm() -> bool:
    try:
        importlib.metadata.distribution("timm")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not _has_timm(), reason="needs the data files of timm (pip install --no-deps timm)")
def test_names_stand_in_classifier_order() -> None:
    names = imagenet_class_names()
    assert len(names) == 1000
    assert names[281] == ("tabby", "tabby cat")
    assert names[967][0] == "espresso"
    assert "missile" in names[657]
    assert names[134] == names[517] == ("crane",)
    assert all(name and name == name.strip() for synonyms in names for name in synonyms)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet_classes, "DISTRIBUTION", "not-an-installed-distribution")
    with pytest.raises(InvalidRequestError, match="pip install --no-deps timm"):
        imagenet_class_names()
