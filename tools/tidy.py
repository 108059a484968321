"""The house rules that no other tool checks: budgets, words, documents, a few traps of asyncio.

`python -m tools.tidy [ROOT]` prints one line per finding and exits 1 if there is any. A budget has
a soft and a hard limit; only what lies between may be exempted, in tools/tidy_exemptions.toml, and
an exemption that nothing needs any more is a finding too, so the list can only shrink. What ruff,
mypy and import-linter know is not repeated here.

Start reading at `check_tree`; the rules about Python are in tools/tidy_python.py.
"""

import ast
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.tidy_python import PYTHON_RULES, Finding, Source

EXEMPTIONS = "tools/tidy_exemptions.toml"
SKIPPED_DIRS = frozenset({".git", ".venv", ".cache", "build", "dist", "results", "__pycache__"})
CODE_SUFFIXES = frozenset({".py", ".sh", ".sql", ".c", ".h", ".service", ".html", ".js", ".css"})
DATA_SUFFIXES = frozenset({".toml", ".txt", ".conf", ".yml", ".yaml", ".json", ".cfg", ".md"})
TEXT_NAMES = frozenset({"Makefile", "run", ".gitignore"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A pattern no committed text may contain, where it applies, and what to say instead."""

    rule: str
    pattern: re.Pattern[str]
    instead: str
    only_in: tuple[str, ...] = ("",)
    unless: re.Pattern[str] | None = None


def whole(*words: str) -> re.Pattern[str]:
    """Any of the words, also with -s or -es, between underscores, or as a hump of CamelCase."""
    humps = "|".join(word.capitalize() for word in words)
    return re.compile(
        rf"(?<![A-Za-z])(?i:{'|'.join(words)})(?i:e?s)?(?![A-Za-z])|(?:{humps})(?=[A-Z])"
    )


REGISTRIES = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("debian", "org"),
    ("npmjs", "com"),
    ("npmjs", "org"),
)
WORDS = (
    Word(rule="banned-word", pattern=whole("master", "slave"), instead="primary and replica"),
    Word(rule="banned-word", pattern=whole("blacklist", "whitelist"), instead="denied and allowed"),
    Word(
        rule="banned-word",
        pattern=whole("leader"),
        instead="primary, or coordinator for the Raft leader (docs/glossary.md)",
        only_in=("src/ramd/", "src/ramctrl/"),
        unless=re.compile("raft|leader_node_id", re.IGNORECASE),  # a field users know
    ),
    Word(
        rule="registry-host",
        pattern=re.compile("|".join(re.escape(".".join(host)) for host in REGISTRIES)),
        instead="the package by its name alone",
    ),
    Word(
        rule="todo",
        pattern=re.compile(r"\b(FIXME|XXX)\b|\bTODO\b(?!: \w+ \w+ \w+)"),
        instead="`TODO: ` and a sentence that says what is missing",
    ),
)


def word_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    """Every line that holds a banned word."""
    for word in WORDS:
        if not path.startswith(word.only_in):
            continue
        for number, line in enumerate(lines, start=1):
            match = word.pattern.search(line)
            if match and not (word.unless and word.unless.search(line)):
                text = f"{match.group()!r}: write {word.instead}"
                yield Finding(rule=word.rule, where=path, line=number, text=text)


def heading_findings(path: str, lines: list[str]) -> Iterator[Finding]:
    """A document has exactly one title."""
    if not path.endswith(".md"):
        return
    fenced = False
    titles = 0
    for line in lines:
        fenced ^= line.startswith("```")
        titles += line.startswith("# ") and not fenced
    if titles != 1:
        yield Finding(
            rule="one-title", where=path, line=1, text=f"{titles} first-level headings, wanted 1"
        )


TEXT_RULES: tuple[Callable[[str, list[str]], Iterator[Finding]], ...] = (
    word_findings,
    heading_findings,
)


def check_file(path: str, text: str) -> Iterator[Finding]:
    """Every finding in one file; `path` is relative to the root, with forward slashes."""
    lines = text.splitlines()
    for text_rule in TEXT_RULES:
        yield from text_rule(path, lines)
    if path.endswith(".py"):
        source = Source(path=path, text=text, tree=ast.parse(text, path), lines=lines)
        for python_rule in PYTHON_RULES:
            yield from python_rule(source)


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """Every text file below the root with its relative path, in a fixed order."""
    for folder, dirs, names in os.walk(root):
        dirs[:] = sorted(d for d in dirs if d not in SKIPPED_DIRS and not d.endswith("_cache"))
        for name in sorted(names):
            if Path(name).suffix in CODE_SUFFIXES | DATA_SUFFIXES or name in TEXT_NAMES:
                file = Path(folder, name)
                yield file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")


def apply_exemptions(
    findings: Iterable[Finding], exempt: list[dict[str, str]]
) -> Iterator[Finding]:
    """The findings left, and one for each exemption without a reason or without a use."""
    unused = {(entry["rule"], entry["where"]) for entry in exempt}
    granted = frozenset(unused)
    for finding in findings:
        key = (finding.rule, finding.where)
        unused.discard(key)
        if key not in granted or not finding.exemptible:
            yield finding
    for entry in exempt:
        name = f"{entry['rule']} {entry['where']}"
        if (entry["rule"], entry["where"]) in unused:
            text = f"{name} is not needed any more: take it out"
            yield Finding(rule="exemption", where=EXEMPTIONS, line=1, text=text)
        if not entry.get("reason"):
            yield Finding(
                rule="exemption", where=EXEMPTIONS, line=1, text=f"{name} gives no reason"
            )


def check_tree(root: Path) -> list[Finding]:
    """Every finding below the root that no exemption covers."""
    listed = root / EXEMPTIONS
    exempt = (
        tomllib.loads(listed.read_text(encoding="utf-8")).get("exempt", [])
        if listed.exists()
        else []
    )
    found = (finding for path, text in texts(root) for finding in check_file(path, text))
    return list(apply_exemptions(found, exempt))


def main(arguments: list[str]) -> int:
    """Prints the findings; the exit status says whether there were any."""
    root = Path(arguments[0] if arguments else ".")
    findings = check_tree(root)
    for finding in findings:
        print(finding)
    print(f"tidy: {len(findings)} findings" if findings else "tidy: nothing to find")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
