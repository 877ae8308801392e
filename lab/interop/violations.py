"""Breaches of HTTP/3, each of which the peer must answer by closing the connection with the code its RFC names."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, StreamType, encode_frame

from greased_h3 import GreasedH3

RESERVED_FRAME = 0x02
LARGEST_QUARTER_STREAM = (1 << 60) - 1

Breach = Callable[[GreasedH3], None]


def _on_control_stream(data: bytes, end_stream: bool = False) -> Breach:
    return lambda h3: h3.send_raw(h3.control_stream, data, end_stream)


def _on_new_stream(data: bytes, unidirectional: bool, end_stream: bool = False) -> Breach:
    return lambda h3: h3.send_raw(h3.next_stream(unidirectional), data, end_stream)


# Breaches at any time.
VIOLATIONS: dict[str, tuple[Breach, ErrorCode]] = {
    # RFC 9114 section 6.2.1
    "second_control_stream": (
        _on_new_stream(encode_uint_var(StreamType.CONTROL), True),
        ErrorCode.H3_STREAM_CREATION_ERROR,
    ),
    "control_stream_ended": (_on_control_stream(b"", end_stream=True), ErrorCode.H3_CLOSED_CRITICAL_STREAM),
    # RFC 9114 section 6.2.2
    "push_stream_of_client": (
        _on_new_stream(encode_uint_var(StreamType.PUSH), True),
        ErrorCode.H3_STREAM_CREATION_ERROR,
    ),
    # RFC 9204 section 4.2
    "encoder_stream_reset": (lambda h3: h3.reset_encoder_stream(), ErrorCode.H3_CLOSED_CRITICAL_STREAM),
    # RFC 9114 section 7.2.1
    "data_on_control_stream": (_on_control_stream(encode_frame(FrameType.DATA, b"x")), ErrorCode.H3_FRAME_UNEXPECTED),
    "data_before_headers": (_on_new_stream(encode_frame(FrameType.DATA, b"x"), False), ErrorCode.H3_FRAME_UNEXPECTED),
    # RFC 9114 section 7.2.4
    "second_settings": (_on_control_stream(encode_frame(FrameType.SETTINGS, b"")), ErrorCode.H3_FRAME_UNEXPECTED),
    "settings_in_request": (
        _on_new_stream(encode_frame(FrameType.SETTINGS, b""), False),
        ErrorCode.H3_FRAME_UNEXPECTED,
    ),
    # RFC 9114 section 7.2.5
    "push_promise_of_client": (
        _on_new_stream(encode_frame(FrameType.PUSH_PROMISE, b"\0"), False),
        ErrorCode.H3_FRAME_UNEXPECTED,
    ),
    # RFC 9114 section 7.2.7
    "push_id_reduced": (_on_control_stream(encode_frame(FrameType.MAX_PUSH_ID, b"\0")), ErrorCode.H3_ID_ERROR),
    # RFC 9114 section 7.2.8
    "http2_frame": (_on_control_stream(encode_frame(RESERVED_FRAME, b"")), ErrorCode.H3_FRAME_UNEXPECTED),
    # RFC 9114 section 7.1
    "frame_cut_off": (_on_new_stream(b"\x01\x20\0\0", False, end_stream=True), ErrorCode.H3_FRAME_ERROR),
    # RFC 9204 section 2.2.3: refers to an entry of a dynamic table that was never filled.
    "unknown_table_entry": (
        _on_new_stream(encode_frame(FrameType.HEADERS, b"\x02\0\x80"), False),
        ErrorCode.QPACK_DECOMPRESSION_FAILED,
    ),
}

# Breaches of an open tunnel: nobody need read datagrams before.
TUNNEL_VIOLATIONS: dict[str, tuple[Breach, ErrorCode]] = {
    # RFC 9297 section 2.1
    "datagram_without_stream": (lambda h3: h3.send_raw_datagram(b""), ErrorCode.H3_DATAGRAM_ERROR),
    "datagram_of_impossible_stream": (
        lambda h3: h3.send_raw_datagram(encode_uint_var(LARGEST_QUARTER_STREAM + 1) + b"\0"),
        ErrorCode.H3_DATAGRAM_ERROR,
    ),
}

ALL_VIOLATIONS = VIOLATIONS | TUNNEL_VIOLATIONS
