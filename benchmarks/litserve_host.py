"""The compact captioner behind LitServe: `python -m benchmarks.litserve_host PORT ROWS`."""

import sys
from typing import Any

import litserve
from fastapi import Request

from app.images import decode_image
from models.bundle import Bundle, default_bundle
from models.captions import CaptionSettings


class CaptionAPI(litserve.LitAPI):  # type: ignore[misc]
    """LitServe decodes in the worker that runs the model, and sends what it got there by pickle."""

    def setup(self, device: Any) -> None:
        self.captioner = Bundle.open(default_bundle()).load_captioner()

    def decode_request(self, request: Request, **_: Any) -> tuple[Any, str]:
        form: Any = request
        return decode_image(form["image"].file.read()).image, str(form["language"])

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, photos: list[Any], **_: Any) -> list[dict[str, Any]]:
        result = self.captioner.caption_each(
            [image for image, _ in photos], [(language,) for _, language in photos], CaptionSettings(())
        )
        model_ms = sum(result.timings_ms.values())
        return [{"text": image.captions[0].text, "model_ms": model_ms} for image in result.images]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any], **_: Any) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    port, rows = map(int, sys.argv[1:])
    # No waiting for company, as in Paellera.
    api = CaptionAPI(max_batch_size=rows, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error")
