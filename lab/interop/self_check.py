"""Runs the CONNECT-IP client against the CONNECT-IP server on loopback, before both meet Adit."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
PORT = "14433"
TOKEN = "self-check-token"
INNER = ["10.99.0.1", "fd99::1"]


def write_certificate(folder: Path) -> None:
    """A self-signed certificate for ::1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-check")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("::1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_certificate(folder)
        (folder / "token").write_text(TOKEN)
        files = [str(folder / file) for file in ("cert.pem", "key.pem", "token")]
        where = ["::1", PORT, *files[:2], "--token-file", files[2]]
        offer = [
            "--prefix",
            "10.99.0.2/32",
            "--prefix",
            "fd99::2/128",
            "--route",
            "10.99.0.0/24",
            "--route",
            "fd99::/64",
        ]
        inner = [word for address in INNER for word in ("--inner", address)]
        server = subprocess.Popen(
            [sys.executable, str(HERE / "connect_ip_server.py"), *where, *offer, *inner],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None and "listening" in server.stdout.readline()
            targets = [word for address in INNER for word in ("--ping", address)]
            client = [sys.executable, str(HERE / "connect_ip_client.py"), "::1", PORT, files[0], *targets]
            output = subprocess.run(
                client, input=TOKEN, stdout=subprocess.PIPE, text=True, timeout=60, check=True
            ).stdout
        finally:
            server.terminate()
            log = server.communicate()[0]
    report = json.loads(output)
    print(json.dumps(report, indent=2), log, sep="\n")
    echoes = all(
        seen["echo"] and seen["full_size"] and seen["in_capsule"] and not seen["spoofed"]
        for seen in report["packets"].values()
    )
    refused = all(outcome in (400, 401) for outcome in report["refusals"].values())
    return 0 if echoes and refused and report["malformed_capsule"] == "reset 0x10e" else 1


if __name__ == "__main__":
    sys.exit(main())
