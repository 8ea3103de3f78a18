"""What every recipe says of its run."""

from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from retrieval.precision import fast_cpu_dtype

Precision = Literal["fp32", "bf16", "fp16"]


def _cpu_precision() -> Precision:
    return "bf16" if fast_cpu_dtype() is torch.bfloat16 else "fp32"


class RunConfig(BaseModel):
    """What every recipe has in common."""

    model_config = ConfigDict(extra="forbid")

    output: Path  # folder of the run
    seed: int = 0
    steps: PositiveInt
    warmup_steps: int = Field(default=100, ge=0)
    learning_rate: PositiveFloat  # AdamW: embeddings, norms, biases
    matrix_learning_rate: PositiveFloat | None = None  # Muon: matrices; None trains them by AdamW too
    weight_decay: float = 0.01
    gradient_clip: PositiveFloat = 1.0
    # Of the products (autocast); trained weights stay in fp32. By default bf16 where this CPU is fast in it.
    precision: Precision = Field(default_factory=_cpu_precision)
    # Batches of the stream whose gradients make one step, over all processes.
    batches_per_step: PositiveInt = 1
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200

    @model_validator(mode="after")
    def _checkpoints_end_a_logged_row(self) -> Self:
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")
        return self
