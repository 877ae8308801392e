"""Capsules of CONNECT-IP (RFC 9297 section 3.2, RFC 9484 section 4.7), written from the RFCs alone."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import pairwise

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DATAGRAM = 0x00
ADDRESS_ASSIGN = 0x01
ADDRESS_REQUEST = 0x02
ROUTE_ADVERTISEMENT = 0x03
STANDARD = (DATAGRAM, ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT)


@dataclass(frozen=True)
class Assigned:
    """One entry of ADDRESS_ASSIGN or ADDRESS_REQUEST."""

    request_id: int
    prefix: Network


@dataclass(frozen=True)
class Route:
    """One range of ROUTE_ADVERTISEMENT; protocol 0 is any."""

    start: Address
    end: Address
    protocol: int = 0

    @classmethod
    def from_prefix(cls, prefix: Network) -> Route:
        return cls(prefix[0], prefix[-1])


class CapsuleReader:
    """Cuts the byte stream of a tunnel into capsules, however it was cut into DATA frames."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields (type, value) of each capsule that is complete."""
        self._pending += data
        while True:
            buffer = Buffer(data=self._pending)
            try:
                kind = buffer.pull_uint_var()
                value = buffer.pull_bytes(buffer.pull_uint_var())
            except BufferReadError:
                return
            self._pending = self._pending[buffer.tell() :]
            yield kind, value

    def is_between_capsules(self) -> bool:
        return not self._pending


def capsule(kind: int, value: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(value)) + value


def grease_capsule() -> bytes:
    """A capsule of a type reserved for greasing (RFC 9297 section 5.4), which a receiver skips."""
    return capsule(0x29 * random.randrange(1 << 32) + 0x17, random.randbytes(random.randrange(200)))


def encode_addresses(kind: int, entries: Iterable[Assigned]) -> bytes:
    """Encodes ADDRESS_ASSIGN or ADDRESS_REQUEST."""
    value = b"".join(
        encode_uint_var(entry.request_id)
        + bytes([entry.prefix.version])
        + entry.prefix.network_address.packed
        + bytes([entry.prefix.prefixlen])
        for entry in entries
    )
    return capsule(kind, value)


def decode_addresses(value: bytes) -> list[Assigned]:
    """Decodes ADDRESS_ASSIGN or ADDRESS_REQUEST; raises ValueError where the RFC calls it malformed."""
    buffer, entries = Buffer(data=value), []
    try:
        while not buffer.eof():
            request_id, version = buffer.pull_uint_var(), buffer.pull_uint8()
            address = _pull_address(buffer, version)
            # A network with host bits set raises, as the RFC demands.
            entries.append(Assigned(request_id, ipaddress.ip_network((address, buffer.pull_uint8()))))
    except BufferReadError as error:
        raise ValueError("address list is cut off") from error
    return entries


def encode_routes(routes: Iterable[Route]) -> bytes:
    """Encodes ROUTE_ADVERTISEMENT, in the order the RFC demands."""
    ordered = sorted(routes, key=lambda route: (route.start.version, route.protocol, int(route.start)))
    value = b"".join(
        bytes([route.start.version]) + route.start.packed + route.end.packed + bytes([route.protocol])
        for route in ordered
    )
    return capsule(ROUTE_ADVERTISEMENT, value)


def decode_routes(value: bytes) -> list[Route]:
    """Decodes ROUTE_ADVERTISEMENT; raises ValueError where the RFC calls it malformed."""
    buffer, routes = Buffer(data=value), []
    try:
        while not buffer.eof():
            version = buffer.pull_uint8()
            start, end = _pull_address(buffer, version), _pull_address(buffer, version)
            routes.append(Route(start, end, buffer.pull_uint8()))
    except BufferReadError as error:
        raise ValueError("route list is cut off") from error
    for route in routes:
        if int(route.start) > int(route.end):
            raise ValueError(f"range {route} ends before it starts")
    for last, route in pairwise(routes):
        kind_of_last, kind = (last.start.version, last.protocol), (route.start.version, route.protocol)
        if kind_of_last > kind or (kind_of_last == kind and int(last.end) >= int(route.start)):
            raise ValueError(f"ranges {last} and {route} overlap or are out of order")
    return routes


def _pull_address(buffer: Buffer, version: int) -> Address:
    if version == 4:
        return IPv4Address(buffer.pull_bytes(4))
    if version == 6:
        return IPv6Address(buffer.pull_bytes(16))
    raise ValueError(f"IP version {version}")
