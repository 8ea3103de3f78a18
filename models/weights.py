"""State dicts into modules, with an error that names what does not fit."""

from collections.abc import Mapping

from torch import Tensor, nn

from retrieval.errors import BundleError


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], what: str, *, assign: bool = False
) -> None:
    """Load a state dict and name what does not fit.

    Args:
        assign: take the tensors themselves, in their dtype, instead of copying them into the module's own.

    Raises:
        BundleError: missing, unexpected or misshapen weights.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if weights[name].shape != expected[name].shape
    ]
    problems = (
        [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected] + misshapen
    )
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise BundleError(f"the weights do not fit the {what}: {shown}")
    module.load_state_dict(dict(weights), assign=assign)
