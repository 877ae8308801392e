#!/usr/bin/env python3
"""Checks the walls of the house: who may depend on whom, what is pure, and that the packet path knows no QUIC or HTTP.

`.ci/run purity` calls it. With --self-test it first feeds each check with samples it must refuse and samples it must
accept.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# For each crate the crates of ours that it may name in [dependencies]: {proto, netem, program} < {host, net} <
# {server, client} < lab < bench. Server and client meet in no crate below lab.
GROUND = {"adit-proto", "adit-netem", "adit-program"}
MIDDLE = GROUND | {"adit-host", "adit-net"}
NORMAL = {
    "adit-proto": set(),
    "adit-netem": set(),
    "adit-program": set(),
    "adit-testing": set(),
    "adit-host": GROUND,
    "adit-net": GROUND,
    "adit-server": MIDDLE,
    "adit-client": MIDDLE,
    # It runs the programs and reads what they tell; only its tests link their code.
    "adit-lab": MIDDLE | {"adit-testing"},
    "adit-bench": MIDDLE | {"adit-server", "adit-client", "adit-lab"},
    "adit-fuzz": {"adit-proto"},
}
# Tests may also use what serves tests alone; those of the two shells on one floor each other, and those
# of the lab the code of the programs.
FOR_TESTS = {"adit-testing", "adit-netem"}
BESIDE = {
    "adit-host": {"adit-net"},
    "adit-net": {"adit-host"},
    "adit-lab": {"adit-server", "adit-client"},
}

# What must not reach a crate by normal dependencies, however far away, and what it may name besides.
IO = {
    "async-std", "hyper", "libc", "mio", "nix", "quinn", "quinn-proto", "quinn-udp", "rtnetlink", "rusqlite", "rustix",
    "rustls", "smol", "socket2", "tokio", "tokio-util", "tracing-subscriber", "tun", "zbus",
}
UNREACHABLE = {
    "adit-proto": IO,
    "adit-netem": IO,
    "adit-program": {"hyper", "quinn", "quinn-proto", "quinn-udp", "rtnetlink", "rusqlite", "rustls", "tun", "zbus"},
}

# What is installed on hosts, and has nothing of what serves tests.
PROGRAMS = ["adit-server", "adit-client"]

# What the sources of a pure crate do not name outside their tests.
IMPURE = [
    (r"\bstd::fs\b", "files"),
    (r"\bstd::(env|process)\b", "the process"),
    (r"\bstd::net::[^;]*\b(TcpListener|TcpStream|UdpSocket)\b", "sockets"),
    (r"\bstd::os::unix::net\b", "sockets"),
    (r"\bstd::thread\b", "threads"),
    (r"\b(Instant|SystemTime)::now\b", "clocks"),
]
PURE = ["proto/src", "netem/src"]
# The bodies of fuzz targets begin a run, which takes a clock's word for the beginning of its virtual time.
PURE_BUT = {"proto/src/fuzzing.rs"}

PACKET_PATH = ["net/src/worker", "net/src/tun", "net/src/udp"]
PROTOCOLS = re.compile(r"quic|quinn|h3|http", re.IGNORECASE)


def directions(packages):
    """Faults in the dependencies that members name. `packages`: [(name, [(dependency, kind)])], where "optional" is the
    kind of one that only a feature brings."""
    for package, dependencies in packages:
        if package not in NORMAL:
            yield f"{package} has no place in the house: give it a row in .ci/walls.py"
            continue
        for dependency, kind in dependencies:
            if not dependency.startswith("adit-"):
                continue
            allowed = NORMAL[package]
            if kind == "dev":
                # A crate that names itself wants a feature of its own for its tests.
                allowed = allowed | FOR_TESTS | BESIDE.get(package, set()) | {package}
            elif kind == "optional":
                # Doubles for tests stand behind a feature, which no program has: see PROGRAMS.
                allowed = allowed | {"adit-testing"}
            if dependency not in allowed:
                yield f"{package} must not depend on {dependency} ({kind or 'normal'})"
        named = {dependency for dependency, _ in dependencies}
        if {"adit-server", "adit-client"} <= named and package not in ("adit-lab", "adit-bench"):
            yield f"server and client meet in {package}"


def reached(crate, names):
    """Faults among all crates that normal dependencies of `crate` reach."""
    for name in sorted(UNREACHABLE[crate] & set(names)):
        yield f"{crate} reaches {name}"
    for name in sorted(name for name in set(names) if name.startswith("adit-") and name != crate):
        yield f"{crate} reaches {name}"


def for_tests(program, names):
    """What serves tests among all crates that normal dependencies of a program reach."""
    for name in sorted(FOR_TESTS & set(names)):
        yield f"{program} has {name} in it"


def product_lines(text):
    """Numbered lines without comments and without what is compiled for tests only."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        if re.match(r"\s*#\[cfg\(test\)\]", line):
            at = end_of_item(lines, at)
            continue
        code = re.sub(r"//.*", "", line)
        if code.strip():
            yield at + 1, code
        at += 1


def end_of_item(lines, at):
    """The line behind the item whose attributes begin at `at`; it ends in `;`, or with the brace at its margin."""
    margin = re.match(r"\s*", lines[at]).group()
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.lstrip().startswith("#["):
            continue
        if line.rstrip().endswith((";", "}")):
            return at
        while at < len(lines) and not re.match(rf"{margin}}}", lines[at]):
            at += 1
        return at + 1
    return at


def impure(path, text):
    """Faults of a file of a pure crate."""
    for number, line in product_lines(text):
        for pattern, what in IMPURE:
            if re.search(pattern, line):
                yield f"{path}:{number} uses {what}: {line.strip()}"


def protocols(path, text):
    """Lines of the packet path that name a protocol above it."""
    for number, line in product_lines(text):
        if PROTOCOLS.search(line):
            yield f"{path}:{number} names QUIC or HTTP: {line.strip()}"


def files(places):
    """The product's Rust files in these places: each a folder, or a module with its file beside it."""
    for place in places:
        beside = (ROOT / place).with_suffix(".rs")
        found = sorted((ROOT / place).rglob("*.rs"))
        if beside.is_file():
            found.append(beside)
        if not found:
            sys.exit(f"{place}: there is nothing to check; mend .ci/walls.py")
        for file in found:
            inside = file.relative_to(ROOT / "/".join(place.split("/")[:2]))
            name = str(file.relative_to(ROOT))
            if not re.search(r"(^|[/_])tests?(/|\.rs$)|^test_", str(inside)) and not file.name.startswith("test_"):
                yield name, file.read_text()


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def members():
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"]:
        arguments = ["--format-version=1", "--no-deps", "--locked", f"--manifest-path={manifest}"]
        said = json.loads(cargo("metadata", *arguments))
        for package in said["packages"]:
            kinds = [(one["name"], "optional" if one["optional"] else one["kind"]) for one in package["dependencies"]]
            yield package["name"], kinds


def tree(crate):
    said = cargo("tree", "--locked", "-p", crate, "-e", "normal", "--prefix=none", "--format={p}", "--color=never")
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def check():
    yield from directions(members())
    for crate in UNREACHABLE:
        yield from reached(crate, tree(crate))
    for program in PROGRAMS:
        yield from for_tests(program, tree(program))
    for path, text in files(PURE):
        if path not in PURE_BUT:
            yield from impure(path, text)
    for path, text in files(PACKET_PATH):
        yield from protocols(path, text)


def self_test():
    """Every check refuses what it must, and nothing else."""
    refused = [
        directions([("adit-proto", [("adit-netem", None)])]),
        directions([("adit-net", [("adit-host", None)])]),
        directions([("adit-server", [("adit-client", None)])]),
        directions([("adit-server", [("adit-testing", None)])]),
        directions([("adit-server", [("adit-client", "dev")])]),
        directions([("adit-client", [("adit-lab", "dev")])]),
        directions([("adit-lab", [("adit-server", None)])]),
        directions([("adit-fuzz", [("adit-net", None)])]),
        directions([("adit-attic", [])]),
        directions([("adit-net", [("adit-testing", None)])]),
        for_tests("adit-server", ["adit-server", "adit-net", "adit-testing"]),
        reached("adit-proto", ["adit-proto", "tokio"]),
        reached("adit-netem", ["adit-netem", "adit-program"]),
        reached("adit-program", ["adit-program", "rustls"]),
        impure("a.rs", "use std::fs;\n"),
        impure("a.rs", "use std::net::{IpAddr, UdpSocket};\n"),
        impure("a.rs", "    let now = Instant::now();\n"),
        impure("a.rs", "#[cfg(test)]\nmod tests;\nuse std::thread;\n"),
        impure("a.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n\nuse std::fs::File;\n"),
        protocols("a.rs", "use crate::quic;\n"),
        protocols("a.rs", "let to = H3Connection::new();\n"),
    ]
    accepted = [
        directions([("adit-server", [("adit-net", None), ("adit-testing", "dev"), ("serde", None)])]),
        directions([("adit-lab", [("adit-server", "dev"), ("adit-client", "dev"), ("adit-testing", None)])]),
        directions([("adit-fuzz", [("adit-proto", None)])]),
        directions([("adit-net", [("adit-testing", "optional"), ("adit-net", "dev")])]),
        for_tests("adit-client", ["adit-client", "adit-host", "adit-net"]),
        reached("adit-program", ["adit-program", "tokio", "nix", "tracing"]),
        impure("a.rs", "// std::fs is for shells\nuse std::net::IpAddr;\n"),
        impure("a.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"),
        impure("a.rs", "/// As `Instant::now` would say.\nfn later(now: Instant) {}\n"),
        protocols("a.rs", "/// One for QUIC.\nlet socket = open();\n"),
    ]
    for number, faults in enumerate(refused):
        if not list(faults):
            sys.exit(f"self-test: sample {number} to refuse is accepted")
    for number, faults in enumerate(accepted):
        if found := list(faults):
            sys.exit(f"self-test: sample {number} to accept is refused: {found}")
    print(f"self-test: {len(refused)} bad samples refused, {len(accepted)} good ones accepted")


if __name__ == "__main__":
    if "--self-test" in sys.argv[1:]:
        self_test()
    found = list(check())
    if found:
        sys.exit("\n".join(found))
    print("dependencies point one way; proto, netem and program are pure; the packet path names neither QUIC nor HTTP")
