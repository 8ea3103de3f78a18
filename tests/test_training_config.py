from pathlib import Path

import pytest

from retrieval.errors import InvalidRequestError
from training.bridge import BridgeRun, new_bridge
from training.config import read_config
from training.language import LanguageShape

CONFIGS = Path(__file__).parents[1] / "training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("bridge*.toml")), ids=lambda path: path.stem)
def test_every_bridge_of_the_recipes_can_be_built(path: Path) -> None:
    run = read_config(path, BridgeRun)
    bridge = new_bridge(run, LanguageShape())
    assert bridge.config.num_parameters == sum(p.numel() for p in bridge.parameters())


def test_an_extended_recipe_differs_in_what_it_says_alone() -> None:
    base = read_config(CONFIGS / "bridge.toml", BridgeRun)
    other = read_config(CONFIGS / "bridge-gated.toml", BridgeRun)
    assert other.shape.kind == "gated_cross_attention"
    assert "reduction" not in other.shape.settings
    same = {"shape": base.shape, "output": base.output}
    assert other.model_copy(update=same) == base


def test_a_chain_of_recipes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "c.toml"')
    with pytest.raises(InvalidRequestError, match="itself extends"):
        read_config(tmp_path / "a.toml", BridgeRun)
    with pytest.raises(InvalidRequestError, match=r"cannot read the recipe .*c\.toml"):
        read_config(tmp_path / "b.toml", BridgeRun)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kind": "bottleneck", "reduction": 2}, "no setting reduction"),
        ({"kind": "gated_cross_attention", "every": "often"}, "every"),
        ({"kind": "cross_attention", "reduction": 7}, "not a multiple"),
        ({"kind": "cross_attention", "reduction": 0}, "reduction must not be 0"),
        ({"kind": "cross_attention", "num_kv_heads": 0}, "num_kv_heads must not be 0"),
        ({"kind": "gated_cross_attention", "num_latents": -1}, "num_latents must not be -1"),
        ({"kind": "bottleneck", "num_layers": 2}, "no setting num_layers"),
        ({"kind": "cross_attention", "query_scaling": "no"}, "query_scaling"),
    ],
)
def test_settings_that_do_not_fit_are_named(shape: dict[str, object], message: str) -> None:
    run = read_config(CONFIGS / "bridge.toml", BridgeRun)
    wrong = run.model_copy(update={"shape": type(run.shape).model_validate(shape)})
    with pytest.raises(InvalidRequestError, match=message):
        new_bridge(wrong, LanguageShape())
