"""HTTP/3 by aioquic with grease in every place where RFC 9114 and RFC 9297 leave room for extensions."""

from __future__ import annotations

import asyncio
import random

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import H3Connection, Setting, encode_frame
from aioquic.h3.events import H3Event
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset

IP_PACKET_CONTEXT = 0
MAX_DATAGRAM_FRAME = 65535
UDP_PAYLOAD = 1350
"""Room for packets of 1280 bytes, which RFC 9484 section 7.2.1 demands for IPv6."""

Headers = list[tuple[bytes, bytes]]


def configuration(is_client: bool) -> QuicConfiguration:
    """The QUIC settings both roles share."""
    return QuicConfiguration(
        alpn_protocols=["h3"],
        is_client=is_client,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        max_datagram_size=UDP_PAYLOAD,
        idle_timeout=30,
    )


def grease_id() -> int:
    """An identifier reserved for greasing settings, frames and streams (RFC 9114 section 7.2.8)."""
    return 0x1F * random.randrange(1 << 32) + 0x21


def grease_frame() -> bytes:
    return encode_frame(grease_id(), random.randbytes(random.randrange(100)))


class GreasedH3(H3Connection):
    """An HTTP/3 connection that takes HTTP datagrams and greases its SETTINGS and control stream."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self._send_grease_on_control_stream()

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        settings[Setting.H3_DATAGRAM] = 1
        greased = [(grease_id(), random.randrange(1 << 62)) for _ in range(3)]
        shuffled = [*settings.items(), *greased]
        random.shuffle(shuffled)
        return dict(shuffled)

    def _send_grease_on_control_stream(self) -> None:
        self.send_raw(self.control_stream, grease_frame() + encode_frame(grease_id(), b""))

    def open_grease_streams(self) -> None:
        """Opens unidirectional streams of unknown types: one that ends, one that is reset, one that stays open."""
        self._open_grease_stream(random.randbytes(300), end_stream=True)
        self._quic.reset_stream(self._open_grease_stream(random.randbytes(10)), 0x100)
        self._open_grease_stream(b"")

    @property
    def control_stream(self) -> int:
        assert self._local_control_stream_id is not None
        return self._local_control_stream_id

    def next_stream(self, unidirectional: bool) -> int:
        stream_id: int = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        return stream_id

    def send_raw(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Sends bytes as they are, whatever aioquic thinks of them."""
        self._quic.send_stream_data(stream_id, data, end_stream)

    def send_raw_datagram(self, data: bytes) -> None:
        self._quic.send_datagram_frame(data)

    def reset_encoder_stream(self) -> None:
        assert self._local_encoder_stream_id is not None
        self._quic.reset_stream(self._local_encoder_stream_id, 0x100)

    def _open_grease_stream(self, data: bytes, end_stream: bool = False) -> int:
        stream_id = self.next_stream(unidirectional=True)
        self.send_raw(stream_id, encode_uint_var(grease_id()) + data, end_stream)
        return stream_id

    def send_grease(self, stream_id: int) -> None:
        """Sends frames of unknown types on a request stream."""
        self.send_raw(stream_id, grease_frame() + grease_frame())

    def send_packet(self, stream_id: int, packet: bytes, context: int = IP_PACKET_CONTEXT) -> None:
        """Sends an IP packet in an HTTP datagram (RFC 9484 section 6)."""
        self.send_datagram(stream_id, encode_uint_var(context) + packet)

    def send_in_pieces(self, stream_id: int, data: bytes) -> None:
        """Sends capsules cut into small DATA frames with unknown frames between them."""
        while data:
            length = random.randrange(1, 20)
            self.send_data(stream_id, data[:length], end_stream=False)
            self.send_grease(stream_id)
            data = data[length:]


def packet_of(datagram: bytes) -> bytes | None:
    """The IP packet in an HTTP datagram's payload; None in another context."""
    buffer = Buffer(data=datagram)
    context = buffer.pull_uint_var()
    return datagram[buffer.tell() :] if context == IP_PACKET_CONTEXT else None


class H3Protocol(QuicConnectionProtocol):
    """The asyncio side of a connection: hands HTTP events, resets and the end to methods of its subclass."""

    def __init__(self, quic: QuicConnection, **kwargs: object) -> None:
        super().__init__(quic, **kwargs)  # type: ignore[arg-type]
        self._h3: GreasedH3 | None = None

    @property
    def h3(self) -> GreasedH3:
        assert self._h3 is not None, "HTTP/3 starts with the handshake"
        return self._h3

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._h3 = GreasedH3(self._quic)
            self._h3.open_grease_streams()
        if self._h3 is None:
            return
        for http_event in self._h3.handle_event(event):
            self.http_event_received(http_event)
        if isinstance(event, StreamReset):
            self.stream_was_reset(event.stream_id, event.error_code)
        elif isinstance(event, ConnectionTerminated):
            self.connection_ended(event.error_code, event.reason_phrase)

    def http_event_received(self, event: H3Event) -> None:
        raise NotImplementedError

    def stream_was_reset(self, stream_id: int, code: int) -> None:
        raise NotImplementedError

    def connection_ended(self, code: int, reason: str) -> None:
        raise NotImplementedError

    async def peer_settings(self, seconds: float = 5.0) -> dict[int, int]:
        """Waits for the peer's SETTINGS."""
        async with asyncio.timeout(seconds):
            while self._h3 is None or self._h3.received_settings is None:
                await asyncio.sleep(0.01)
            return self._h3.received_settings
