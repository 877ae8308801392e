"""A CONNECT-IP server (RFC 9484) on aioquic, with inner hosts that answer echo requests.

It prints what it sees as JSON lines. `--assign` says when clients get their addresses: unasked with the response, or
only in answer to ADDRESS_REQUEST. SIGUSR1 adds `--later-route` to the routes of every open tunnel.
With `--breach` the first tunnels each end in a breach of HTTP/3, to see how clients close their connections over it.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import signal
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, ClassVar

from aioquic.asyncio.server import serve
from aioquic.h3.connection import Setting
from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent

import capsules
import packets
from capsules import Assigned, Network, Route
from greased_h3 import H3Protocol, Headers, configuration, packet_of
from violations import ALL_VIOLATIONS

TUNNEL_PATHS = ("/.well-known/masque/ip/*/*/", "/.well-known/masque/ip/%2A/%2A/")
MESSAGE_ERROR = 0x10E
FORBIDDEN_HEADERS = ("content-length", "content-type", "transfer-encoding", "connection", "upgrade")


@dataclass
class Settings:
    """What a server hands out, and to whom."""

    token: str
    assign: str
    prefixes: list[Network]
    inner: list[capsules.Address]
    routes: list[Network]
    later_routes: list[Network]
    breaches: list[str]
    """Names of the breaches still to be committed, one a tunnel."""


@dataclass
class Session:
    """One accepted tunnel."""

    stream_id: int
    reader: capsules.CapsuleReader = field(default_factory=capsules.CapsuleReader)


def say(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


class Server(H3Protocol):
    """A client's connection."""

    open: ClassVar[set[Server]] = set()

    def __init__(self, quic: QuicConnection, settings: Settings, **kwargs: object) -> None:
        super().__init__(quic, **kwargs)
        self._settings = settings
        self._sessions: dict[int, Session] = {}
        self._said_settings = False
        self._breach: str | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        super().quic_event_received(event)
        settings = self._h3.received_settings if self._h3 else None
        if settings is not None and not self._said_settings:
            self._said_settings = True
            say("settings", datagrams=settings.get(Setting.H3_DATAGRAM), ids=sorted(settings))

    def http_event_received(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._handle_request(event.stream_id, event.headers)
        elif isinstance(event, DataReceived) and (session := self._sessions.get(event.stream_id)):
            self._handle_capsules(session, event.data)
            if event.stream_ended:
                self._end(session, clean=session.reader.is_between_capsules())
        elif isinstance(event, DatagramReceived) and (session := self._sessions.get(event.stream_id)):
            self._handle_packet(session, packet_of(event.data))

    def stream_was_reset(self, stream_id: int, code: int) -> None:
        if stream_id in self._sessions:
            del self._sessions[stream_id]
            say("reset", code=code)

    def connection_ended(self, code: int, reason: str) -> None:
        Server.open.discard(self)
        if self._breach is not None:
            say("breach", name=self._breach, code=code, expected=int(ALL_VIOLATIONS[self._breach][1]))
        say("closed", code=code, reason=reason)

    def _handle_request(self, stream_id: int, raw: Headers) -> None:
        headers = {name.decode(): value.decode() for name, value in raw}
        problems = problems_of(headers)
        authorization = headers.pop("authorization", "")
        say("request", headers=headers, problems=problems)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._settings.token.encode()):
            self._refuse(stream_id, 401, (b"www-authenticate", b"Bearer"))
        elif problems:
            self._refuse(stream_id, 400)
        else:
            self._accept(stream_id)

    def _refuse(self, stream_id: int, status: int, *extra: tuple[bytes, bytes]) -> None:
        say("refused", status=status)
        self.h3.send_headers(stream_id, [(b":status", str(status).encode()), *extra], end_stream=True)

    def _accept(self, stream_id: int) -> None:
        session = self._sessions[stream_id] = Session(stream_id)
        Server.open.add(self)
        self.h3.send_grease(stream_id)
        # An interim response precedes the final one without being it (RFC 9114 section 4.1).
        self.h3.send_headers(stream_id, [(b":status", b"103"), (b"link", b"</grease>; rel=preload")])
        self.h3.send_headers(stream_id, [(b":status", b"200"), (b"capsule-protocol", b"?1"), (b"x-grease", b"yes")])
        self.h3.send_grease(stream_id)
        if self._settings.assign == "unasked":
            self._send_addresses(session, {})
        self.send_routes(self._settings.routes)
        if self._settings.breaches:
            self._breach = self._settings.breaches.pop(0)
            ALL_VIOLATIONS[self._breach][0](self.h3)

    def _handle_capsules(self, session: Session, data: bytes) -> None:
        for kind, value in session.reader.feed(data):
            if kind == capsules.ADDRESS_REQUEST:
                self._handle_address_request(session, value)
            elif kind == capsules.DATAGRAM:
                self._handle_packet(session, packet_of(value))
            elif kind in capsules.STANDARD:
                say("capsule", kind=kind)
            else:
                say("unknown_capsule", kind=kind)

    def _handle_address_request(self, session: Session, value: bytes) -> None:
        try:
            wanted = capsules.decode_addresses(value)
            if not wanted or any(entry.request_id == 0 for entry in wanted):
                raise ValueError("no entry, or one without a request id")
        except ValueError as error:
            say("malformed", reason=str(error))
            self._quic.reset_stream(session.stream_id, MESSAGE_ERROR)
            return
        say("address_request", entries=[[entry.request_id, str(entry.prefix)] for entry in wanted])
        self._send_addresses(session, {entry.prefix.version: entry.request_id for entry in wanted})

    def _send_addresses(self, session: Session, requests: dict[int, int]) -> None:
        """Assigns every address; those of a requested family bear the request's id."""
        entries = [Assigned(requests.get(prefix.version, 0), prefix) for prefix in self._settings.prefixes]
        self._send_capsules(session, capsules.encode_addresses(capsules.ADDRESS_ASSIGN, entries))

    def send_routes(self, prefixes: list[Network]) -> None:
        for session in self._sessions.values():
            self._send_capsules(session, capsules.encode_routes(Route.from_prefix(prefix) for prefix in prefixes))
        self.transmit()

    def _send_capsules(self, session: Session, data: bytes) -> None:
        self.h3.send_in_pieces(session.stream_id, capsules.grease_capsule() + data + capsules.grease_capsule())

    def _handle_packet(self, session: Session, packet: bytes | None) -> None:
        echo = packets.decode(packet or b"")
        if echo is None or not echo.is_echo_request() or echo.destination not in self._settings.inner:
            say("ignored", length=len(packet or b""))
            return
        assigned = any(echo.source in prefix for prefix in self._settings.prefixes)
        say("echo", source=str(echo.source), destination=str(echo.destination), assigned=assigned)
        if not assigned:
            return
        # A datagram of an unknown context first, which the client drops.
        self.h3.send_packet(session.stream_id, echo.echo_reply().encode(), context=1)
        self.h3.send_packet(session.stream_id, echo.echo_reply().encode())

    def _end(self, session: Session, clean: bool) -> None:
        say("ended", clean=clean)
        self._sessions.pop(session.stream_id, None)
        self.h3.send_data(session.stream_id, b"", end_stream=True)


def problems_of(headers: dict[str, str]) -> list[str]:
    """What RFC 9484 section 4.5 finds wrong with a request, in words."""
    wanted = {":method": "CONNECT", ":protocol": "connect-ip", ":scheme": "https", "capsule-protocol": "?1"}
    problems = [f"{name} is {headers.get(name)!r}" for name, value in wanted.items() if headers.get(name) != value]
    if not headers.get(":authority"):
        problems.append(":authority is empty")
    if headers.get(":path") not in TUNNEL_PATHS:
        problems.append(f":path is {headers.get(':path')!r}")
    problems.extend(f"{name} is present" for name in FORBIDDEN_HEADERS if name in headers)
    return problems


def advertise(prefixes: list[Network]) -> None:
    for server in Server.open:
        server.send_routes(prefixes)


async def run(options: argparse.Namespace) -> None:
    settings = Settings(
        token=options.token_file.read_text().strip(),
        assign=options.assign,
        prefixes=options.prefix,
        inner=options.inner,
        routes=options.route,
        later_routes=options.route + options.later_route,
        breaches=options.breach,
    )
    config = configuration(is_client=False)
    config.load_cert_chain(options.certificate, options.key)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, advertise, settings.later_routes)
    server = await serve(
        options.host, options.port, configuration=config, create_protocol=partial(Server, settings=settings)
    )
    say("listening", port=options.port)
    await stop.wait()
    server.close()
    await asyncio.sleep(0.1)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", help="PEM file of the server's certificate")
    parser.add_argument("key", help="PEM file of its key")
    parser.add_argument(
        "--token-file", type=Path, required=True, help="file with the bearer token that lets clients in"
    )
    parser.add_argument("--assign", choices=["unasked", "asked"], default="unasked", help="when clients get addresses")
    parser.add_argument("--prefix", type=ip_network, action="append", default=[], help="prefix every client gets")
    parser.add_argument(
        "--inner", type=ip_address, action="append", default=[], help="address that answers echo requests"
    )
    parser.add_argument("--route", type=ip_network, action="append", default=[], help="prefix to advertise")
    parser.add_argument(
        "--later-route", type=ip_network, action="append", default=[], help="prefix to advertise on SIGUSR1"
    )
    breach = parser.add_argument("--breach", choices=list(ALL_VIOLATIONS), action="append", default=[])
    breach.help = "breach of HTTP/3 to commit in the next tunnel"
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(run(parse_options()))
