"""The client's end of CONNECT-IP tunnels (RFC 9484): requests, what comes back on them, and packets sent by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection

import capsules
import packets
from capsules import Address, Assigned, Route
from greased_h3 import H3Protocol, Headers, packet_of
from packets import IcmpPacket

ANSWER_SECONDS = 5.0
SILENCE_SECONDS = 1.0
SPOOFED = b"adit-interop-spoofed"
"""Data of packets with a foreign source, by which whoever captures traffic can tell them."""
PLAIN = 84
"""Length of an ordinary echo packet, in bytes."""


@dataclass
class Exchange:
    """One request stream and everything that came back on it."""

    stream_id: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None
    ended: bool = False
    reader: capsules.CapsuleReader = field(default_factory=capsules.CapsuleReader)
    assigned: list[Assigned] | None = None
    assignments: int = 0
    routes: list[Route] | None = None
    unknown_capsules: list[int] = field(default_factory=list)
    packets: list[IcmpPacket] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def outcome(self) -> int | str:
        """The status, or the code of a reset."""
        if self.status is not None:
            return self.status
        return "nothing" if self.reset is None else f"reset {self.reset:#x}"

    def is_open(self) -> bool:
        """Whether addresses and routes are known."""
        return self.assigned is not None and self.routes is not None

    def is_over(self) -> bool:
        return self.ended or self.reset is not None

    def handle_data(self, data: bytes) -> None:
        if self.status != 200:
            return
        for kind, value in self.reader.feed(data):
            if kind == capsules.ADDRESS_ASSIGN:
                self.assigned = capsules.decode_addresses(value)
                self.assignments += 1
            elif kind == capsules.ROUTE_ADVERTISEMENT:
                self.routes = capsules.decode_routes(value)
            else:
                self.unknown_capsules.append(kind)

    async def wait(self, seen: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> bool:
        """Waits until `seen()` is true; False where that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while not seen():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            return False
        return True


class Client(H3Protocol):
    """A connection to a gateway, with any number of requests."""

    def __init__(self, quic: QuicConnection, **kwargs: object) -> None:
        super().__init__(quic, **kwargs)
        self.exchanges: dict[int, Exchange] = {}
        self.closed: tuple[int, str] | None = None

    def request(self, authority: str, path: str, token: str | None) -> Exchange:
        """Sends an extended CONNECT, with unknown frames around it and an unknown header in it."""
        headers: Headers = [
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-ip"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            (b"capsule-protocol", b"?1"),
            (b"x-grease", random.randbytes(8).hex().encode()),
        ]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        exchange = Exchange(self._quic.get_next_available_stream_id())
        self.exchanges[exchange.stream_id] = exchange
        self.h3.send_grease(exchange.stream_id)
        self.h3.send_headers(exchange.stream_id, headers)
        self.h3.send_grease(exchange.stream_id)
        self.transmit()
        return exchange

    async def close_code(self) -> int | None:
        """Waits until the peer closes the connection; None where it does not."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.wait_closed()
        except TimeoutError:
            return None
        return self.closed[0] if self.closed else None

    def private_headers(self) -> list[str]:
        """Names of Adit's own headers among all answers; a client that names no extension shall see none."""
        seen = {name for exchange in self.exchanges.values() for name in exchange.headers}
        return sorted(name for name in seen if name.startswith("adit-"))

    def http_event_received(self, event: H3Event) -> None:
        exchange = self.exchanges.get(getattr(event, "stream_id", -1))
        if exchange is None:
            return
        if isinstance(event, HeadersReceived):
            exchange.headers = {name.decode(): value.decode() for name, value in event.headers}
            exchange.status = int(exchange.headers[":status"])
        elif isinstance(event, DataReceived):
            exchange.handle_data(event.data)
        elif isinstance(event, DatagramReceived):
            packet = packets.decode(packet_of(event.data) or b"")
            exchange.packets.extend([packet] if packet else [])
        exchange.ended = exchange.ended or getattr(event, "stream_ended", False)
        exchange.news.set()

    def stream_was_reset(self, stream_id: int, code: int) -> None:
        if exchange := self.exchanges.get(stream_id):
            exchange.reset = code
            exchange.news.set()

    def connection_ended(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        for exchange in self.exchanges.values():
            exchange.ended = True
            exchange.news.set()


@dataclass
class Tunnel:
    """An accepted tunnel, over which packets are sent by hand."""

    client: Client
    exchange: Exchange

    @property
    def stream_id(self) -> int:
        return self.exchange.stream_id

    def source(self, version: int) -> Address:
        """The own address of a family."""
        assigned = self.exchange.assigned or []
        return next(entry.prefix[0] for entry in assigned if entry.prefix.version == version)

    def send_capsules(self, data: bytes) -> None:
        """Sends capsules among unknown ones, in pieces that respect no boundary."""
        data = capsules.grease_capsule() + data + capsules.grease_capsule()
        self.client.h3.send_in_pieces(self.stream_id, data)
        self.client.transmit()

    def send_packet(self, packet: bytes, context: int = 0) -> None:
        self.client.h3.send_packet(self.stream_id, packet, context)
        self.client.transmit()

    async def request_addresses(self, wanted: list[Assigned]) -> dict[str, Any]:
        """Sends ADDRESS_REQUEST and returns what the next ADDRESS_ASSIGN says."""
        before = self.exchange.assignments
        self.send_capsules(capsules.encode_addresses(capsules.ADDRESS_REQUEST, wanted))
        answered = await self.exchange.wait(lambda: self.exchange.assignments > before)
        return {"answered": answered, "entries": describe_addresses(self.exchange.assigned)}

    def echo_request(self, source: Address, destination: Address, size: int, hop_limit: int = 64) -> IcmpPacket:
        """An echo request with fresh numbers and data; `size` is that of the whole packet."""
        data = random.randbytes(size - (28 if source.version == 4 else 48))
        numbers = random.randrange(1 << 16), random.randrange(1 << 16)
        return IcmpPacket.echo_request(source, destination, *numbers, data, hop_limit)

    async def answered(self, request: IcmpPacket, seconds: float = ANSWER_SECONDS) -> bool:
        return await self.exchange.wait(lambda: any(p.is_reply_to(request) for p in self.exchange.packets), seconds)

    async def echo(self, destination: Address, size: int = PLAIN) -> bool:
        """Whether an echo request is answered; a lost packet gets a second chance."""
        request = self.echo_request(self.source(destination.version), destination, size)
        for _ in range(2):
            self.send_packet(request.encode())
            if await self.answered(request, ANSWER_SECONDS / 2):
                return True
        return False

    async def echo_in_capsule(self, destination: Address) -> bool:
        """Whether an echo request in a DATAGRAM capsule is answered, by a capsule or a datagram."""
        request = self.echo_request(self.source(destination.version), destination, PLAIN)
        self.send_capsules(capsules.capsule(capsules.DATAGRAM, b"\0" + request.encode()))
        return await self.answered(request)

    async def echo_from(self, source: Address, destination: Address) -> bool:
        """Whether anything answers an echo request with this source."""
        request = IcmpPacket.echo_request(source, destination, 1, 1, SPOOFED)
        self.send_packet(request.encode())
        return await self.answered(request, SILENCE_SECONDS)

    async def time_exceeded(self, destination: Address) -> bool:
        """Whether a packet that may not travel further is reported as such."""
        kind = packets.TIME_EXCEEDED[destination.version]
        request = self.echo_request(self.source(destination.version), destination, PLAIN, hop_limit=1)
        self.send_packet(request.encode())
        return await self.exchange.wait(lambda: any(p.kind == kind for p in self.exchange.packets))

    def send_noise(self, destination: Address) -> None:
        """Sends what a gateway must drop without a word: unknown contexts and streams, and bytes that are no packet."""
        request = self.echo_request(self.source(destination.version), destination, PLAIN).encode()
        self.send_packet(request, context=2)
        for junk in (b"", b"\x45", b"\x00" * 40, request[:-1], request + b"\0"):
            self.send_packet(junk)
        self.client.h3.send_packet(self.stream_id + 4000, request)
        self.client.transmit()


def describe_addresses(entries: list[Assigned] | None) -> list[list[Any]]:
    return [[entry.request_id, str(entry.prefix)] for entry in entries or []]


def describe_routes(routes: list[Route] | None) -> list[list[Any]]:
    return [[str(route.start), str(route.end), route.protocol] for route in routes or []]
