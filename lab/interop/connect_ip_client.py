"""A CONNECT-IP client (RFC 9484) on aioquic that puts a gateway through its paces.

It prints what it saw as one JSON object. The exit code is 0 when the whole course was run, whatever
the gateway answered: judging that is the caller's business.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.h3.connection import Setting

import capsules
from capsules import Address, Assigned
from greased_h3 import configuration
from tunnel import Client, Tunnel, describe_addresses, describe_routes
from violations import ALL_VIOLATIONS, TUNNEL_VIOLATIONS

TUNNEL_PATH = "/.well-known/masque/ip/*/*/"
MALFORMED_PATHS = {
    "host_bits": "/.well-known/masque/ip/192.0.2.1%2F24/*/",
    "protocol": "/.well-known/masque/ip/*/256/",
    "no_protocol": "/.well-known/masque/ip/*/",
}
FULL_SIZE = 1280
"""Length of the largest packet that every tunnel with IPv6 must carry (RFC 9484 section 7.2.1), in bytes."""


def authority_of(options: argparse.Namespace) -> str:
    return f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}"


def neighbour(address: Address) -> Address:
    """Another address of the same network, which is not the gateway's: that is the first."""
    return type(address)(int(address) ^ 1)


async def check_refusals(client: Client, authority: str, token: str) -> dict[str, int | str]:
    """How the gateway answers strangers and nonsense."""
    requests: dict[str, tuple[str, str | None]] = {
        "no_token": (TUNNEL_PATH, None),
        "wrong_token": (TUNNEL_PATH, token[::-1]),
    }
    requests |= {name: (path, token) for name, path in MALFORMED_PATHS.items()}
    outcomes = {}
    for name, (path, credentials) in requests.items():
        exchange = client.request(authority, path, credentials)
        await exchange.wait(exchange.is_over)
        outcomes[name] = exchange.outcome()
    return outcomes


async def check_packets(tunnel: Tunnel, targets: list[Address]) -> dict[str, Any]:
    """Echoes and their deviations, for each target."""
    seen: dict[str, Any] = {}
    for target in targets:
        tunnel.send_noise(target)
        seen[str(target)] = {
            "echo": await tunnel.echo(target),
            "full_size": await tunnel.echo(target, FULL_SIZE),
            "in_capsule": await tunnel.echo_in_capsule(target),
            "spoofed": await tunnel.echo_from(neighbour(tunnel.source(target.version)), target),
        }
    return seen


async def check_malformed_capsule(tunnel: Tunnel) -> str:
    """How the gateway ends a tunnel whose client requests no address at all."""
    tunnel.send_capsules(capsules.capsule(capsules.ADDRESS_REQUEST, b""))
    await tunnel.exchange.wait(tunnel.exchange.is_over)
    return f"reset {tunnel.exchange.reset:#x}" if tunnel.exchange.reset is not None else "not reset"


async def check_violations(options: argparse.Namespace, token: str) -> dict[str, list[Any]]:
    """With which code the gateway closes the connection over each breach of HTTP/3, and with which it should."""
    codes: dict[str, list[Any]] = {}
    for name, (breach, expected) in ALL_VIOLATIONS.items():
        async with open_connection(options) as client:
            await client.peer_settings()
            if name in TUNNEL_VIOLATIONS:
                exchange = client.request(authority_of(options), TUNNEL_PATH, token)
                await exchange.wait(exchange.is_open)
            breach(client.h3)
            client.transmit()
            codes[name] = [await client.close_code(), int(expected)]
    return codes


async def run_course(options: argparse.Namespace, token: str) -> dict[str, Any]:
    authority = authority_of(options)
    report: dict[str, Any] = {}
    async with open_connection(options) as client:
        settings = await client.peer_settings()
        report["settings"] = {
            "connect_protocol": settings.get(Setting.ENABLE_CONNECT_PROTOCOL),
            "datagrams": settings.get(Setting.H3_DATAGRAM),
        }
        report["refusals"] = await check_refusals(client, authority, token)
        exchange = client.request(authority, TUNNEL_PATH, token)
        await exchange.wait(exchange.is_open)
        report |= {
            "status": exchange.outcome(),
            "headers": exchange.headers,
            "routes": describe_routes(exchange.routes),
        }
        report["addresses"] = describe_addresses(exchange.assigned)
        if exchange.assigned:
            report |= await use_tunnel(Tunnel(client, exchange), options)
        report["unknown_capsules"] = exchange.unknown_capsules
        report["private_headers"] = client.private_headers()
        report["closed"] = client.closed
    report["violations"] = await check_violations(options, token)
    return report


async def use_tunnel(tunnel: Tunnel, options: argparse.Namespace) -> dict[str, Any]:
    anything = [Assigned(1, ip_network((IPv4Address(0), 32))), Assigned(2, ip_network((IPv6Address(0), 128)))]
    taken = [Assigned(3, ip_network("198.51.100.77/32"))]
    report: dict[str, Any] = {
        "requested": await tunnel.request_addresses(anything),
        "requested_foreign": await tunnel.request_addresses(taken),
        "packets": await check_packets(tunnel, options.ping),
        "time_exceeded": {str(target): await tunnel.time_exceeded(target) for target in options.beyond},
    }
    await hold(options.hold)
    report["after_hold"] = {str(target): await tunnel.echo(target) for target in options.ping}
    report["malformed_capsule"] = await check_malformed_capsule(tunnel)
    return report


async def hold(seconds: float) -> None:
    """Waits for SIGUSR1, so that others can look at the open tunnel."""
    go_on = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go_on.set)
    print("tunnel is up", file=sys.stderr, flush=True)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await go_on.wait()


@asynccontextmanager
async def open_connection(options: argparse.Namespace) -> AsyncIterator[Client]:
    config = configuration(is_client=True)
    config.load_verify_locations(cafile=options.authority)
    config.server_name = options.server_name or options.host
    async with connect(options.host, options.port, configuration=config, create_protocol=Client) as client:
        assert isinstance(client, Client)
        yield client


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("authority", help="PEM file of the certificate authority that signed the gateway's certificate")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token, if not standard input")
    parser.add_argument("--server-name", help="name the gateway's certificate must bear, if not the host")
    parser.add_argument("--ping", type=ip_address, action="append", default=[], help="address to send echo requests to")
    parser.add_argument(
        "--beyond", type=ip_address, action="append", default=[], help="address behind the gateway, for hop limits"
    )
    parser.add_argument(
        "--hold", type=float, default=0.0, help="seconds to keep the tunnel up after the checks, or until SIGUSR1"
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_options()
    token = (options.token_file.read_text() if options.token_file else sys.stdin.read()).strip()
    print(json.dumps(asyncio.run(run_course(options, token))))
