#!/usr/bin/env python3
"""The house's ways of writing that neither rustfmt nor clippy checks. Names each line that differs; exit code 1 then."""

import re
import subprocess
import sys

WIDTH = 120


def comment_width(name, lines):
    """Comments, and Markdown outside tables and code, keep to 120 characters. A link is as long as it is."""
    in_code = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if name.endswith(".md"):
            in_code ^= text.startswith("```")
            is_prose = not in_code and not text.startswith(("|", "```"))
        else:
            is_prose = text.startswith("//") and not re.match(r"//[/!]? \|", text)
        if is_prose and len(line) > WIDTH and not re.search(r"https?://\S{60,}", line):
            yield number, f"{len(line)} characters; the limit is {WIDTH}"


def headings(name, lines):
    """No blank line after a heading such as `# Errors`."""
    for number, (line, after) in enumerate(zip(lines, lines[1:]), 1):
        if re.fullmatch(r"\s*/// # (Errors|Panics|Safety)", line) and after.strip() == "///":
            yield number + 1, "blank line after a heading of a doc comment"


def imports(name, lines):
    """One `use` for each path: braces only around the last segment. Events are written `tracing::info!(…)`."""
    statement, begins = "", 0
    for number, line in enumerate(lines, 1):
        if not statement and not re.match(r"\s*(pub(\([^)]*\))? )?use ", line):
            continue
        begins = begins if statement else number
        statement += line.strip()
        if not statement.endswith(";"):
            continue
        if statement.count("{") > 1:
            yield begins, "nested braces in a `use`"
        if re.match(r"(pub(\([^)]*\))? )?use tracing::(\{|debug|error|info|trace|warn)", statement) and "Instrument" not in statement:
            yield begins, "write tracing::info!(…) with the crate's name"
        statement = ""


def main():
    listed = subprocess.run(["git", "ls-files", "*.rs", "*.md"], capture_output=True, text=True, check=True)
    found = 0
    for name in listed.stdout.split():
        with open(name, encoding="utf-8") as file:
            lines = file.read().split("\n")
        checks = [comment_width] + ([headings, imports] if name.endswith(".rs") else [])
        for check in checks:
            for number, what in check(name, lines):
                print(f"{name}:{number}: {what}")
                found += 1
    if found:
        sys.exit(f"{found} lines are not written as CONTRIBUTING.md says")
    print("comments, Markdown, doc headings and imports are written as CONTRIBUTING.md says")


if __name__ == "__main__":
    main()
