"""ICMP echo packets over IPv4 and IPv6 (RFC 791, 792, 4443, 8200), built and read by hand."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from capsules import Address

ICMP, ICMPV6 = 1, 58
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
TIME_EXCEEDED = {4: 11, 6: 3}


@dataclass(frozen=True)
class IcmpPacket:
    """An ICMP or ICMPv6 message with its addresses."""

    source: Address
    destination: Address
    kind: int
    code: int
    rest: bytes
    """Everything after the checksum: for an echo the identifier, the sequence number and the data."""
    hop_limit: int = field(default=64, compare=False)

    @property
    def version(self) -> int:
        return self.source.version

    @classmethod
    def echo_request(
        cls, source: Address, destination: Address, identifier: int, sequence: int, data: bytes, hop_limit: int = 64
    ) -> IcmpPacket:
        rest = struct.pack("!HH", identifier, sequence) + data
        return cls(source, destination, ECHO_REQUEST[source.version], 0, rest, hop_limit)

    def echo_reply(self) -> IcmpPacket:
        """The answer of the host to which this echo request goes."""
        return IcmpPacket(self.destination, self.source, ECHO_REPLY[self.version], 0, self.rest)

    def is_echo_request(self) -> bool:
        return self.kind == ECHO_REQUEST[self.version] and self.code == 0

    def is_reply_to(self, request: IcmpPacket) -> bool:
        return self == request.echo_reply()

    def encode(self) -> bytes:
        message = struct.pack("!BBH", self.kind, self.code, 0) + self.rest
        checksum = _checksum(self._pseudo_header(len(message)) + message)
        message = message[:2] + struct.pack("!H", checksum) + message[4:]
        addresses = self.source.packed + self.destination.packed
        if self.version == 6:
            return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, self.hop_limit) + addresses + message
        dont_fragment = 0x4000
        header = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(message), 0, dont_fragment, self.hop_limit, ICMP)
        return header + struct.pack("!H", _checksum(header + b"\0\0" + addresses)) + addresses + message

    def _pseudo_header(self, length: int) -> bytes:
        if self.version == 4:
            return b""
        return self.source.packed + self.destination.packed + struct.pack("!II", length, ICMPV6)


def decode(packet: bytes) -> IcmpPacket | None:
    """Reads an ICMP packet with right lengths and checksums; None for any other packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _decode_v4(packet)
    return _decode_v6(packet) if version == 6 else None


def _decode_v4(packet: bytes) -> IcmpPacket | None:
    header = packet[: (packet[0] & 15) * 4]
    if len(header) < 20 or len(packet) < len(header) + 8 or packet[9] != ICMP or _checksum(header) != 0:
        return None
    message = packet[len(header) :]
    if struct.unpack("!H", packet[2:4])[0] != len(packet) or _checksum(message) != 0:
        return None
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return IcmpPacket(source, destination, message[0], message[1], message[4:], packet[8])


def _decode_v6(packet: bytes) -> IcmpPacket | None:
    if len(packet) < 48 or packet[6] != ICMPV6 or struct.unpack("!H", packet[4:6])[0] != len(packet) - 40:
        return None
    source, destination, message = IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), packet[40:]
    read = IcmpPacket(source, destination, message[0], message[1], message[4:], packet[7])
    return read if _checksum(read._pseudo_header(len(message)) + message) == 0 else None


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total
