"""The HTTP side of the fault proxy: one port per worker in front of the S3 server.

Reads requests just far enough to know method and key, carries out what the
`FaultPlan` says, and serialises create-only puts of one key, because the test
server checks and writes in two steps (S3 itself does not).
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from verification.chaos.faults import (
    CLAIM,
    FREEZES,
    Action,
    Fault,
    FaultPlan,
    Request,
    TakeoverError,
    object_step,
)

# How long a crashed worker's successor is given before the next fault.
CRASH_PAUSE_S = 0.5
# How long an overtaking writer waits for messages that the overtaken one has not seen.
GROWTH_TIMEOUT_S = 2.0

_CODES = {
    403: "AccessDenied",
    404: "NoSuchBucket",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"expect"}


class ProxyError(Exception):
    """A request or an answer that the proxy does not understand."""


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """First line, headers as they came, body."""

    first: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    def encode(self, *extra: tuple[bytes, bytes]) -> bytes:
        kept = [(k, v) for k, v in self.headers if k.lower() not in _HOP_BY_HOP]
        lines = [self.first, *(b": ".join(header) for header in [*kept, *extra])]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass
class S3Proxy:
    """Ports for workers in front of `upstream`; every request is shown to `plan`."""

    upstream: tuple[str, int]
    bucket: str
    plan: FaultPlan
    # End of a partition's log as far as known: how far an overtaking writer may claim.
    log_end: Callable[[int], int]
    conflict_status: int | None = None
    _overtaken: int = 0
    _servers: list[asyncio.Server] = field(default_factory=list)
    _locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def listen(self, worker: str) -> int:
        """Open a port of 127.0.0.1 for one worker."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # The scenario is over when a handler is cancelled; nobody waits for it.
            gone = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError)
            with contextlib.suppress(*gone):
                await self._serve(worker, reader, writer)
            with contextlib.suppress(ConnectionError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    async def _serve(self, worker: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, writer)
            if message is None:
                return
            request = self._request(worker, message)
            if not await self._handle(request, message, writer):
                return

    def _request(self, worker: str, message: HttpMessage) -> Request:
        method, target, _ = message.first.split(b" ", 2)
        url = urlsplit(target.decode())
        key = unquote(url.path).lstrip("/").removeprefix(self.bucket).lstrip("/")
        listing = parse_qs(url.query).get("prefix", [""])[0] if "list-type" in url.query else None
        return Request(worker, object_step(method.decode(), key, listing), key or listing or "")

    async def _handle(self, request: Request, message: HttpMessage, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        fault = self.plan.choose(request)
        if fault is None:
            return await _answer(writer, await self._forward(request, message))
        hits = fault.hits
        try:
            return await self._misbehave(fault, request, message, writer)
        except (TakeoverError, OSError, asyncio.IncompleteReadError) as error:
            if fault.hits == hits:
                self.plan.missed(fault, f"{type(error).__name__}: {error}")
            return False

    async def _misbehave(
        self, fault: Fault, request: Request, message: HttpMessage, writer: asyncio.StreamWriter
    ) -> bool:
        fleet, plan = self.plan.fleet, self.plan
        match fault.action:
            case Action.CRASH_BEFORE | Action.CRASH_AFTER:
                if fault.action is Action.CRASH_AFTER:
                    await self._forward(request, message)
                await fleet.kill(request.worker)
                plan.hit(fault, CRASH_PAUSE_S)
                return False
            case Action.LOSE_ANSWER:
                await self._forward(request, message)
                plan.hit(fault)
                return False
            case Action.TRUNCATE:
                answer = (await self._forward(request, message)).encode()
                writer.write(answer[: max(1, len(answer) // 2)])
                await writer.drain()
                plan.hit(fault)
                return False
            case Action.RESET:
                reset(writer)
                plan.hit(fault)
                return False
            case Action.REJECT:
                plan.hit(fault)
                return await _answer(writer, canned(fault.status))
            case Action.SLOW:
                await asyncio.sleep(fault.delay_s)
                plan.hit(fault)
                return await _answer(writer, await self._forward(request, message))
            case Action.OVERTAKE:
                await self._overtake(request, message)
                answered = await self._forward(request, message)
                # A collector that is broken on purpose may overwrite.
                if answered.status == 412 or message.header(b"if-none-match") is None:
                    plan.hit(fault)
                else:
                    plan.missed(fault, f"the overtaken put was answered {answered.status}")
                return await _answer(writer, answered)
        assert fault.action in FREEZES
        answered_before = (
            await self._forward(request, message) if fault.action is Action.FREEZE_AFTER else None
        )
        late: list[HttpMessage] = []
        if answered_before is None:
            plan.held.append(message.body)

        async def meanwhile() -> None:
            # What was under way when the worker froze reaches the server late.
            late.append(answered_before or await self._forward(request, message))

        await plan.freeze(fault, request, meanwhile)
        plan.hit(fault)
        return await _answer(writer, late[0])

    async def _forward(self, request: Request, message: HttpMessage) -> HttpMessage:
        if message.header(b"if-none-match") is None:
            answer = await self._exchange(message)
        else:
            lock = self._locks[request.key]
            if self.conflict_status and lock.locked():
                return canned(self.conflict_status)
            async with lock:
                answer = await self._exchange(message)
        self.plan.answered(request, answer.status)
        return answer

    async def _exchange(self, message: HttpMessage) -> HttpMessage:
        reader, writer = await asyncio.open_connection(*self.upstream, limit=2**20)
        try:
            writer.write(message.encode((b"Connection", b"close")))
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            first, headers = _parse_head(head)
            body = await reader.read()
            return HttpMessage(first, headers, body)
        finally:
            writer.close()

    async def _grown(self, claim: dict[str, Any]) -> int:
        """The end of a claim's partition once it lies beyond the claim; in every third case not waited for."""
        self._overtaken += 1
        deadline = time.monotonic() + GROWTH_TIMEOUT_S
        while self._overtaken % 3 and time.monotonic() < deadline:
            if self.log_end(claim["partition"]) > claim["end"]:
                return self.log_end(claim["partition"])
            await asyncio.sleep(0.01)
        return 0

    async def _overtake(self, request: Request, message: HttpMessage) -> None:
        """Another writer creates the object: a claim with other bounds, anything else as it is."""
        body = message.body
        if request.step == CLAIM:
            body = foreign_claim(body, await self._grown(json.loads(body)))
        headers = [
            (k, v) for k, v in message.headers if k.lower() in (b"host", b"authorization", b"x-amz-date")
        ]
        headers += [(b"If-None-Match", b"*"), (b"Content-Length", str(len(body)).encode())]
        await self._forward(
            Request("another writer", request.step, request.key), HttpMessage(message.first, headers, body)
        )


def foreign_claim(body: bytes, end: int) -> bytes:
    """The same claim by another writer who saw the log up to `end`; if that is no more, half of it."""
    claim = json.loads(body)
    claim["end"] = end if end > claim["end"] else (claim["start"] + claim["end"] + 1) // 2
    claim["claimed_by"] = "another writer"
    return json.dumps(claim).encode()


def canned(status: int) -> HttpMessage:
    """An error answer of S3's that the server behind does not give by itself."""
    code = _CODES[status]
    body = f"<Error><Code>{code}</Code><Message>chaos</Message></Error>".encode()
    headers = [(b"Content-Type", b"application/xml"), (b"Content-Length", str(len(body)).encode())]
    return HttpMessage(f"HTTP/1.1 {status} {code}".encode(), headers, body)


async def read_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpMessage | None:
    """A whole request, or None when the client is gone. Raises ProxyError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, headers = _parse_head(head)
    message = HttpMessage(first, headers, b"")
    if message.header(b"transfer-encoding") is not None:
        raise ProxyError("the proxy reads bodies with a length only")
    if (message.header(b"expect") or b"").lower() == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(message.header(b"content-length") or 0)
    return HttpMessage(first, headers, await reader.readexactly(length)) if length else message


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _answer(writer: asyncio.StreamWriter, answer: HttpMessage) -> bool:
    writer.write(answer.encode())
    await writer.drain()
    return answer.header(b"content-length") is not None


def _parse_head(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    first, *lines = head[:-4].split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip()))
    return first, headers
