"""Multipart forms that are whole: Starlette's parser takes one that breaks off for a shorter one."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser


async def read_form(request: Request, *, max_files: int, max_fields: int, max_part_size: int) -> FormData:
    """The fields and files; close it after use.

    Raises:
        MultiPartException: what is malformed, or ends before its final boundary.
        ValueError, LookupError: a charset that cannot decode the fields.
    """
    async with aclosing(request.stream()) as stream:
        parser = _Parser(
            request.headers, stream, max_files=max_files, max_fields=max_fields, max_part_size=max_part_size
        )
        return await parser.parse()


class _Parser(MultiPartParser):
    ended = False

    async def parse(self) -> FormData:
        async with aclosing(self._whole(self.stream)) as self.stream:
            return await super().parse()

    async def _whole(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Raises where parse() still closes all files: what came before a part that broke off, too."""
        async for chunk in stream:
            yield chunk
        if not self.ended:
            raise MultiPartException("it ends before its final boundary")

    def on_end(self) -> None:
        self.ended = True
