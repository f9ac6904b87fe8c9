"""A TCP proxy between workers and broker whose network can be cut in three ways."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Final, Self

REFUSE: Final = "refuse"
SWALLOW: Final = "swallow"
DEAF: Final = "deaf"
CHUNK: Final = 65536


class Proxy:
    """Listens on a port of its own from the start; passes bytes on to `target` while it is open. A context manager.

    `cut` and `heal` may be called from any thread, and return when it is so.

    The ways: `refuse` resets all connections and takes none; `swallow` passes nothing, and all that was held comes
    after the heal; `deaf` passes what workers send and never their answers, and the heal resets the connections:
    what was written is written, and its writer never learns.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._upstream = asyncio.Event()
        self._downstream = asyncio.Event()
        self._way = ""
        self._upstream.set()
        self._downstream.set()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self, way: str) -> None:
        """Raises ValueError for a way that is none."""
        if way not in (REFUSE, SWALLOW, DEAF):
            raise ValueError(f"{way!r} is no way to cut: {REFUSE}, {SWALLOW} or {DEAF}")
        self._switch(way)

    def heal(self) -> None:
        """Open again. Again has no effect."""
        self._switch("")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listener.close()

    # ---- on the loop's thread

    def _switch(self, way: str) -> None:
        done = threading.Event()

        def run() -> None:
            self._cut(way)
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _cut(self, way: str) -> None:
        if way == REFUSE or self._way == DEAF:
            for writer in self._writers:
                writer.transport.abort()
        self._way = way
        for gate, is_open in ((self._upstream, way != SWALLOW), (self._downstream, way not in (SWALLOW, DEAF))):
            if is_open:
                gate.set()
            else:
                gate.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way == REFUSE:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is down
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(upstream_writer)
        try:
            await asyncio.gather(
                self._pass_on(reader, upstream_writer, self._upstream),
                self._pass_on(upstream_reader, writer, self._downstream),
            )
        finally:
            self._writers -= {writer, upstream_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                await gate.wait()
                writer.write(chunk)
                await writer.drain()
        except OSError:  # either end is gone, and so is the other
            pass
        finally:
            writer.close()
