"""Optimisers over the parameters that a recipe trains, and their schedule."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from training.run_config import RunConfig


def make_optimizers(model: nn.Module, config: RunConfig) -> list[Optimizer]:
    """AdamW, and Muon for the matrices inside the layers if the config asks for it.

    Muon (Jordan et al. 2024) orthogonalises each update; it is meant for hidden matrices, not for embeddings.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices: list[nn.Parameter] = []
    if config.matrix_learning_rate is not None:
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in matrices}
    others = [p for p in trained if id(p) not in chosen]
    optimizers: list[Optimizer] = []
    if others:
        decayed = [p for p in others if p.ndim >= 2]
        kept = [p for p in others if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizers.append(AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98)))
    if matrices:
        assert config.matrix_learning_rate is not None
        optimizers.append(
            Muon(
                matrices,
                lr=config.matrix_learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, config: RunConfig) -> float:
    """Linear warm-up, then linear decay to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return max(0.0, (config.steps - step) / max(1, config.steps - config.warmup_steps))
