"""A bad network: a TCP proxy in front of a broker that delays, throttles, resets, or lets nothing through."""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random


class Proxy:
    """Listens on `port` and forwards to `target`, both of 127.0.0.1; the attributes may be changed at any time.

    `delay` seconds each way, `rate` bytes a second (0: any), `reset_after` bytes of a connection on average after
    which it is reset, `resets_left` times in all, `partitioned`: connections stay open and nothing gets through.
    """

    def __init__(self, port: int, target: int, chance: random.Random) -> None:
        self.port, self._target, self._chance = port, target, chance
        self.delay = self.rate = 0.0
        self.reset_after = 20_000
        self.resets_left = 0
        self.partitioned = False
        self.resets = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._ending = asyncio.Event()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        await self._ending.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            beyond = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        ways = [asyncio.create_task(self._forward(*way)) for way in ((reader, beyond[1]), (beyond[0], writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in ways:
            task.cancel()
        for end in (writer, beyond[1]):
            end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                if self.delay or self.rate:
                    await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0))
                while self.partitioned:  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.05)
                if self.resets_left and self._chance.random() < -math.expm1(-len(data) / self.reset_after):
                    # Cut in the middle of a packet: half of what was read is through.
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    self.resets += 1
                    self.resets_left -= 1
                    return
                writer.write(data)
                await writer.drain()

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        """End, with every connection."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
