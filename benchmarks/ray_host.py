"""The compact captioner behind Ray Serve's `@serve.batch`: `python -m benchmarks.ray_host PORT ROWS`."""

import signal
import sys
from typing import Annotated, Any

from fastapi import FastAPI, File, Form
from ray import serve

from app.images import decode_image

web = FastAPI()
PORT, ROWS = map(int, sys.argv[1:])


@serve.deployment(max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 1})
@serve.ingress(web)
class CaptionDeployment:
    """One replica with the model, as the others have one."""

    def __init__(self) -> None:
        import torch

        from models.bundle import Bundle, default_bundle

        torch.set_num_threads(2)  # Ray sets one for an actor with one CPU; the others have both
        self.captioner = Bundle.open(default_bundle()).load_captioner()

    @web.get("/ready")
    def ready(self) -> str:
        return "yes"

    @web.post("/captions")
    async def captions(
        self, image: Annotated[bytes, File()], language: Annotated[str, Form()]
    ) -> dict[str, Any]:
        answer: dict[str, Any] = await self.caption((image, language))
        return answer

    @serve.batch(max_batch_size=ROWS, batch_wait_timeout_s=0.0)
    async def caption(self, photos: list[Any]) -> list[dict[str, Any]]:
        import asyncio

        from models.captions import CaptionSettings

        def run() -> list[dict[str, Any]]:
            result = self.captioner.caption_each(
                [decode_image(data).image for data, _ in photos],
                [(language,) for _, language in photos],
                CaptionSettings(()),
            )
            model_ms = sum(result.timings_ms.values())
            return [{"text": image.captions[0].text, "model_ms": model_ms} for image in result.images]

        return await asyncio.to_thread(run)


if __name__ == "__main__":
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(CaptionDeployment.bind())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
