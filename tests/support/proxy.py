"""A TCP proxy whose network fails on command: refused, silent, one-way, reset, slow.

Our own, for it runs wherever the tests run; a proxy to install would make its rows skip on a bare machine.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

CHUNK: Final = 64 * 1024
CALL_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with the network. Bytes that are lost leave a hole, so their connections end when it heals."""

    refused: bool = False
    requests_lost: bool = False
    answers_lost: bool = False
    delay_s: float = 0.0


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def end(self, *, reset: bool) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in (self.client, self.server):
            if writer is None:
                continue
            if reset:  # to linger for no time at all is to send RST in place of FIN
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Listens on 127.0.0.1:`port` and passes on to whatever port `target` says. A context manager.

    The faults exclude each other; each call takes effect before it returns. `lost` counts bytes that were swallowed,
    by direction.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._fault = _Fault()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        # Bound and never listening: keeps the port ours while connections are refused.
        self._holder = _reusing_socket(0)
        self.port: int = self._holder.getsockname()[1]
        self.lost = {"requests": 0, "answers": 0}

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def heal(self) -> None:
        """End the fault; connections that lost bytes, or that the fault kept waiting, are closed."""
        self._call(self._change(_Fault()))

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self._call(self._change(_Fault(refused=True)))

    def black_hole(self) -> None:
        """Swallow everything in both directions; connections stay, and new ones are accepted."""
        self._call(self._change(_Fault(requests_lost=True, answers_lost=True)))

    def lose_answers(self) -> None:
        """Requests arrive, and no answer comes back."""
        self._call(self._change(_Fault(answers_lost=True)))

    def delay(self, seconds: float) -> None:
        """Hold every byte back for so long, in both directions."""
        self._call(self._change(_Fault(delay_s=seconds)))

    def reset(self) -> None:
        """End every connection by RST; new ones are served."""
        self._call(self._end_all(reset=True))

    # ---- on the loop's thread

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_WITHIN_S)

    async def _change(self, fault: _Fault) -> None:
        before, self._fault = self._fault, fault
        if fault.refused and self._server is not None:
            self._server.close()
            self._server = None
        if fault.refused or before.requests_lost or before.answers_lost:
            await self._end_all(reset=False)
        if not fault.refused and self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=_reusing_socket(self.port))

    async def _end_all(self, *, reset: bool) -> None:
        for connection in list(self._connections):
            connection.end(reset=reset)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._end_all(reset=False)
        while self._connections:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            from_server, connection.server = await asyncio.open_connection("127.0.0.1", self._target())
            connection.tasks = [
                asyncio.create_task(self._pass(reader, connection.server, "requests")),
                asyncio.create_task(self._pass(from_server, writer, "answers")),
            ]
            await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:  # nobody answers at the target
            pass
        finally:
            self._connections.discard(connection)
            connection.end(reset=False)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        deliver = asyncio.create_task(self._deliver(held, writer))
        try:
            while chunk := await reader.read(CHUNK):
                fault = self._fault
                if fault.requests_lost if direction == "requests" else fault.answers_lost:
                    self.lost[direction] += len(chunk)
                else:
                    held.put_nowait((self._loop.time() + fault.delay_s, chunk))
        except OSError:  # the other side has reset it
            pass
        finally:
            deliver.cancel()

    async def _deliver(self, held: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, chunk = await held.get()
                if (left := due - self._loop.time()) > 0:
                    await asyncio.sleep(left)
                writer.write(chunk)
                await writer.drain()


def _reusing_socket(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
