"""How many bytes of a request's body have been read: the limit on them and the log both want to know."""

from starlette.types import Message, Receive


class CountedReceive:
    """Stands in for a request's `receive` and counts what comes through it."""

    def __init__(self, receive: Receive) -> None:
        self.bytes = 0
        self._receive = receive

    async def __call__(self) -> Message:
        message = await self._receive()
        self.bytes += len(message.get("body", b""))
        return message
