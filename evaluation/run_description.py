"""What every report about captions says of its run beside the scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunDescription:
    bundle: str
    revision: str
    datastore: str | None  # version; None: captioned without any
    split: str
    photos: int
    beams: int | None  # None: not known
