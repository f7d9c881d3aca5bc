"""A transaction-mode pooler as PgBouncer and Supavisor are, and stricter: no two transactions meet one session.

A client gets a server connection with its first message and loses it when the server is idle again; the next
transaction gets the one that has rested longest. Start-up parameters that PgBouncer does not know are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KNOWN_PARAMETERS = {"user", "database", "client_encoding", "application_name", "datestyle", "timezone"}
SSL_REQUEST, CANCEL_REQUEST = 80877103, 80877102
LEFT_BEHIND = """
    SELECT 'prepared statement ' || name FROM pg_prepared_statements
    UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session'
    UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
    UNION ALL SELECT 'temporary table ' || relname FROM pg_class WHERE relpersistence = 't'
"""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Pooler:
    """`url` leads through it."""

    url: str
    idle: asyncio.Queue[Streams] = field(default_factory=asyncio.Queue)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def left_behind(self) -> list[str]:
        """What transactions left in the sessions of the server; nobody may be in one."""
        found = []
        for _ in range(self.idle.qsize()):
            reader, writer = await self.idle.get()
            writer.write(_message(b"Q", LEFT_BEHIND.encode() + b"\0"))
            kind = b""
            while kind != b"Z":
                kind, body = await _read(reader)
                if kind == b"D":
                    found.append(body[6:].decode())
            await self.idle.put((reader, writer))
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it leaves."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if await self._welcome(reader, writer):
                await _Client(self, reader, writer).relay()
        writer.close()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
            if code == CANCEL_REQUEST:
                return False
            if code != SSL_REQUEST:
                break
            writer.write(b"N")
        names = {name.decode().lower() for name in body.rstrip(b"\0").split(b"\0")[::2]}
        if names - KNOWN_PARAMETERS:
            said = f"unsupported startup parameter: {sorted(names - KNOWN_PARAMETERS)}".encode()
            writer.write(_message(b"E", b"SFATAL\0C08P01\0M" + said + b"\0\0"))
            return False
        writer.write(_message(b"R", struct.pack("!i", 0)))
        for name, value in (("server_version", "18.0"), ("client_encoding", "UTF8"), ("integer_datetimes", "on")):
            writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(_message(b"K", struct.pack("!ii", 1, 1)) + _message(b"Z", b"I"))
        return True


@dataclass
class _Client:
    pooler: Pooler
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: Streams | None = None

    async def relay(self) -> None:
        while True:
            kind, body = await _read(self.reader)
            if kind == b"X":
                return
            if self.server is None:
                self.server = await self.pooler.idle.get()
                task = asyncio.create_task(self._answer(self.server))
                self.pooler.tasks.add(task)
                task.add_done_callback(self.pooler.tasks.discard)
            self.server[1].write(_message(kind, body))

    async def _answer(self, server: Streams) -> None:
        while True:
            kind, body = await _read(server[0])
            if kind == b"Z" and body == b"I":
                self.server = None
                self.pooler.idle.put_nowait(server)
                self.writer.write(_message(kind, body))
                return
            self.writer.write(_message(kind, body))


@asynccontextmanager
async def pooled(url: str, *, size: int = 3) -> AsyncIterator[Pooler]:
    """A pooler with `size` connections to the server of `url`."""
    parts = urlsplit(url)
    pooler = Pooler(url)
    for _ in range(size):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        parameters = f"user\0{parts.username}\0database\0{parts.path[1:]}\0\0".encode()
        writer.write(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
        while (await _read(reader))[0] != b"Z":
            pass
        await pooler.idle.put((reader, writer))
    listener = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pooler.url = f"postgres://{parts.username}@127.0.0.1:{port}{parts.path}"
    try:
        yield pooler
    finally:
        listener.close()
        for task in pooler.tasks:
            task.cancel()
        while not pooler.idle.empty():
            pooler.idle.get_nowait()[1].close()


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(length - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
