"""What is asked for captions, and what became of a request."""

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What became of a request."""

    seconds: float
    status: int  # 0: no answer, or the connection broke
    retry_after: bool = False
    model_ms: float = 0.0  # of `seconds`, by the server's word: what its captioner was busy for


@dataclass(frozen=True)
class Target:
    """Where captions are asked for: a form with the photo as `image`."""

    url: str
    fields: Sequence[tuple[str, str]] = ()


def model_ms_of(body: bytes) -> float:
    """Milliseconds of an answer that its server's captioner was busy for."""
    reply = json.loads(body)
    if "model_ms" in reply:  # the hosts of this folder
        return float(reply["model_ms"])
    return sum(reply["timings_ms"][stage] for stage in ("encode", "retrieve", "generate"))
