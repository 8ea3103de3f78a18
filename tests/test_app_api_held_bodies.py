import anyio
from echo_captioner import EchoCaptioner
from sample_pictures import encode, noisy
from service_client import service_client
from starlette.types import Message, Receive, Scope, Send

from app.api.held_bodies import HeldBodiesMiddleware
from app.errors import BodiesFullError


def test_many_large_bodies_at_once_are_bounded_together() -> None:
    """Each client sends the first half of its body, then waits; what the service holds stays bounded."""
    half = bytes(400)

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    async def client(limited: HeldBodiesMiddleware, goes_on: anyio.Event, outcomes: list[str]) -> None:
        sent = 0

        async def receive() -> Message:
            nonlocal sent
            sent += 1
            if outcomes.count("half") >= 5:
                await goes_on.wait()
            outcomes.append("half")
            return {"type": "http.request", "body": half, "more_body": sent < 2}

        async def send(message: Message) -> None: ...

        try:
            await limited({"type": "http", "headers": []}, receive, send)
            outcomes.append("read")
        except BodiesFullError:
            outcomes.append("refused")

    async def main() -> None:
        limited = HeldBodiesMiddleware(reader, max_bytes=2000)
        goes_on, outcomes = anyio.Event(), list[str]()
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(client, limited, goes_on, outcomes)
            await anyio.wait_all_tasks_blocked()
            assert limited.held <= 2000
            goes_on.set()
        assert outcomes.count("refused") > 0
        assert outcomes.count("read") > 0
        assert limited.held == 0
        outcomes.clear()
        await client(HeldBodiesMiddleware(reader, max_bytes=10), goes_on, outcomes)
        assert outcomes[-1] == "read"  # one alone may have more

    anyio.run(main)


def test_one_alone_may_have_more_and_leaves_nothing_behind() -> None:
    photo = encode(noisy(), "PNG")
    with service_client(EchoCaptioner(), max_bodies_bytes=100) as client:
        for _ in range(3):
            response = client.post("/v1/captions", content=photo, headers={"content-type": "image/png"})
            assert response.status_code == 200
