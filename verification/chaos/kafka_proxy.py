"""The Kafka side of the fault proxy: one port per worker in front of a single-node broker.

Understands request headers (which API, which correlation id) and puts its own
port where answers name the broker, so that clients come back through it.
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from verification.chaos.faults import AFTER, FREEZES, Action, Fault, FaultPlan, Request, TakeoverError
from verification.chaos.s3_proxy import CRASH_PAUSE_S, reset

# Requests that faults can be bound to, by API key.
STEPS = {1: "fetch", 8: "commit", 9: "read commit", 11: "join", 12: "heartbeat", 14: "sync", 3: "metadata"}
# Answers that name brokers: Metadata, FindCoordinator, DescribeCluster.
_NAMES_BROKERS = {3, 10, 60}
_HOST = b"127.0.0.1"
_HEADER = struct.Struct(">hhi")
_COMMIT = 8
# How many commits later an old one is repeated.
_COMMITS_KEPT = 6
# Correlation ids that clients, which count from 1, do not come to.
_OWN_CORRELATION = 2**31 - 1


@dataclass
class KafkaProxy:
    """Ports for workers in front of the broker on `upstream_port` of 127.0.0.1."""

    upstream_port: int
    plan: FaultPlan
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def listen(self, worker: str) -> int:
        """Open a port of 127.0.0.1 for one worker."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            port = writer.get_extra_info("sockname")[1]
            # The scenario is over when a handler is cancelled; nobody waits for it.
            with contextlib.suppress(asyncio.CancelledError):
                await _Connection(self, worker, port, reader, writer).run()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()


class _Connection:
    """One client connection and its counterpart to the broker."""

    def __init__(
        self,
        proxy: KafkaProxy,
        worker: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._plan = proxy.plan
        self._upstream_port = proxy.upstream_port
        self._worker = worker
        self._reader, self._writer = reader, writer
        self._from = _HOST + struct.pack(">i", proxy.upstream_port)
        self._to = _HOST + struct.pack(">i", port)
        # (API key, fault that waits for the answer) by correlation id.
        self._pending: dict[int, tuple[int, Fault | None, Request]] = {}
        self._commits: deque[bytes] = deque(maxlen=_COMMITS_KEPT)
        self._acting: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            reader, upstream = await asyncio.open_connection(_HOST.decode(), self._upstream_port)
            pumps = [
                asyncio.create_task(self._requests(upstream)),
                asyncio.create_task(self._answers(reader)),
            ]
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # The broker is down; the client finds out by the closed connection.
        finally:
            for _, fault, _ in self._pending.values():
                if fault is not None:
                    self._plan.missed(fault, "the connection ended before the answer came")
            for writer in (self._writer, upstream):
                if writer is not None:
                    with contextlib.suppress(OSError):
                        writer.close()

    async def _requests(self, upstream: asyncio.StreamWriter) -> None:
        while True:
            frame = await _read_frame(self._reader)
            api, _, correlation = _HEADER.unpack_from(frame, 4)
            request = Request(self._worker, STEPS.get(api, f"api {api}"))
            fault = self._plan.choose(request) if api in STEPS else None
            if fault is not None and fault.action not in AFTER:
                if not await self._act(self._before(fault, request)):
                    return
                fault = None
            self._pending[correlation] = (api, fault, request)
            upstream.write(frame)
            if api == _COMMIT:
                self._commits.append(frame)
            if fault is not None and fault.action is Action.REPEAT_OLD:
                own = struct.pack(">i", _OWN_CORRELATION)
                upstream.write(self._commits[0][:8] + own + self._commits[0][12:])
            await upstream.drain()

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        while True:
            frame = await _read_frame(reader)
            (correlation,) = struct.unpack_from(">i", frame, 4)
            if correlation == _OWN_CORRELATION:
                continue
            api, fault, request = self._pending.pop(correlation)
            if api in _NAMES_BROKERS:
                frame = frame.replace(self._from, self._to)
            if fault is not None and not await self._act(self._after(fault, request, frame)):
                return
            self._writer.write(frame)
            await self._writer.drain()

    async def _act(self, action: Coroutine[Any, Any, bool]) -> bool:
        # A worker that is killed takes its connection with it; the fault is seen through all the same.
        self._acting = asyncio.create_task(action)
        return await asyncio.shield(self._acting)

    async def _before(self, fault: Fault, request: Request) -> bool:
        """Carry out a fault on a request; whether to forward it then."""
        match fault.action:
            case Action.CRASH_BEFORE:
                await self._plan.fleet.kill(request.worker)
                self._plan.hit(fault, CRASH_PAUSE_S)
                return False
            case Action.RESET:
                reset(self._writer)
                self._plan.hit(fault)
                return False
            case Action.SLOW:
                await asyncio.sleep(fault.delay_s)
                self._plan.hit(fault)
                return True
            case Action.FREEZE_BEFORE:
                return await self._freeze(fault, request)
        raise ValueError(f"{fault.name} is no fault of the Kafka side")

    async def _after(self, fault: Fault, request: Request, frame: bytes) -> bool:
        """Carry out a fault on an answer; whether to pass it on then."""
        match fault.action:
            case Action.CRASH_AFTER:
                await self._plan.fleet.kill(request.worker)
                self._plan.hit(fault, CRASH_PAUSE_S)
                return False
            case Action.LOSE_ANSWER:
                self._plan.hit(fault)
                return False
            case Action.TRUNCATE:
                self._writer.write(frame[: len(frame) // 2])
                await self._writer.drain()
                self._plan.hit(fault)
                return False
        if fault.action is Action.REPEAT_OLD:
            self._plan.hit(fault)
            return True
        assert fault.action in FREEZES
        return await self._freeze(fault, request)

    async def _freeze(self, fault: Fault, request: Request) -> bool:
        async def nothing() -> None:
            return None

        try:
            await self._plan.freeze(fault, request, nothing)
        except TakeoverError as error:
            self._plan.missed(fault, str(error))
            return False
        self._plan.hit(fault)
        return True


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
