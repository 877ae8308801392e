#!/usr/bin/env python3
"""Refuses a Cargo.lock with a crate that is known to be weak, by the committed `.ci/advisories.toml`.

`.ci/run deny` calls it. With --self-test it first shows that it refuses what it must and accepts what it must. A copy of
the whole database would need a download, and its verdict would change without a change of ours.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def number(version):
    """(1, 2, 3) of `1.2.3` with or without `+build`; None of a pre-release."""
    version = version.split("+")[0]
    return None if "-" in version else tuple(int(part) for part in version.split("."))


def compatible_below(at_least):
    """The first version that `^VERSION` excludes."""
    for place, part in enumerate(at_least):
        if part:
            return at_least[:place] + (part + 1,)
    return (0,) * (len(at_least) - 1) + (1,)


def holds(version, comparison):
    for operator in (">=", "<", "^"):
        if comparison.startswith(operator):
            other = number(comparison.removeprefix(operator).strip())
            if operator == ">=":
                return version >= other
            return version < other if operator == "<" else other <= version < compatible_below(other)
    sys.exit(f"advisories.toml: {comparison!r} is no comparison; write >=, < or ^ before a version")


def is_good(version, good):
    """Whether one of the alternatives holds; each is a list of comparisons that must all hold."""
    version = number(version)
    return version is not None and any(
        all(holds(version, comparison.strip()) for comparison in alternative.split(",")) for alternative in good
    )


def faults(packages, advisories):
    """`packages`: [(name, version)] of the lock file. A row that is `accepted`, with the reason, is no fault."""
    for name, version in packages:
        for advisory, entry in advisories.get(name, {}).items():
            if not entry.get("accepted") and not is_good(version, entry["good"]):
                good = " or ".join(entry["good"])
                yield f"{name} {version}: {advisory}, {entry['what']}; run `cargo update -p {name}` for {good}"


def locked():
    with open(ROOT / "Cargo.lock", "rb") as file:
        return [(package["name"], package["version"]) for package in tomllib.load(file)["package"]]


def listed():
    with open(ROOT / ".ci" / "advisories.toml", "rb") as file:
        return tomllib.load(file)


def self_test(advisories, packages):
    sample = {"a": {"X-1": {"good": ["<0.3", "^0.9.5", ">=1.2.0, <1.3.0", ">=1.4.1"], "what": "w"}}}
    for version in ("0.2.9", "0.9.5", "0.9.9", "1.2.0", "1.2.7", "1.4.1", "1.4.1+build", "2.0.0"):
        assert not list(faults([("a", version)], sample)), f"{version} must be accepted"
    for version in ("0.3.0", "0.9.4", "0.10.0", "1.1.9", "1.3.0", "1.4.0", "1.4.1-alpha.1"):
        assert list(faults([("a", version)], sample)), f"{version} must be refused"
    assert not list(faults([("b", "0.3.0")], sample)), "another crate has nothing to do with it"
    weak = {"what": "w", "good": []}
    assert list(faults([("a", "0.3.0")], {"a": {"X-1": weak}})), "no version is good"
    assert not list(faults([("a", "0.3.0")], {"a": {"X-1": weak | {"accepted": "does not touch us"}}})), "it is accepted"
    # Each row must be able to refuse: the version just below a floor of it is bad.
    for name, rows in advisories.items():
        for advisory, entry in rows.items():
            if entry.get("accepted"):
                assert not entry["good"], f"{advisory}: there are good versions; run `cargo update -p {name}` instead"
                continue
            floor = number(entry["good"][-1].removeprefix(">="))
            below = floor[:-1] + (floor[-1] - 1,) if floor[-1] else floor[:-2] + (floor[-2] - 1, 99)
            assert list(faults([(name, ".".join(map(str, below)))], {name: {advisory: entry}})), f"{advisory} refuses nothing"
    unknown = sorted(set(advisories) - {name for name, _ in packages})
    assert not unknown, f"not in Cargo.lock, so their rows check nothing: {unknown}"


def main():
    packages, advisories = locked(), listed()
    if "--self-test" in sys.argv:
        self_test(advisories, packages)
    found = sorted(set(faults(packages, advisories)))
    if found:
        sys.exit("\n".join(found))
    for name, rows in advisories.items():
        for advisory, entry in rows.items():
            if entry.get("accepted"):
                print(f"accepted: {name}: {advisory}, {entry['what']}: {entry['accepted']}")
    print(f"no crate has one of the {sum(map(len, advisories.values()))} known weaknesses, but for those that were accepted")


main()
