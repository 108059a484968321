"""Prints pages and envelopes: tables for people, JSON and YAML for machines, text for pipes.

Lives here: everything about terminals. rich is imported only when a table is printed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from ramctrl.client import Envelope
from ramctrl.page import BAD, GOOD, TONES, WARN, Page
from ramctrl.settings import Format, Settings

STYLES = {GOOD: "green", WARN: "yellow", BAD: "bold red"}
WIDTH_OFF_TERMINAL = 10_000
"""Nothing is cut or wrapped in a pipe."""


def show(settings: Settings, envelope: Envelope, page: Callable[[Mapping[str, Any]], Page]) -> None:
    """Print a successful answer in the wanted format."""
    match settings.format:
        case Format.JSON:
            print(json.dumps(envelope, indent=2, ensure_ascii=False))
        case Format.YAML:
            _print_yaml(envelope)
        case Format.TEXT:
            print(as_text(page(envelope.get("data") or {})))
        case Format.TABLE:
            _print_page(page(envelope.get("data") or {}), colored=wants_color(settings, sys.stdout))


def show_error(message: str, *, hint: str = "", settings: Settings | None = None) -> None:
    """What went wrong, and what to do about it, on standard error."""
    colored = wants_color(settings or Settings(), sys.stderr)
    print(f"{_paint('error:', '1;31', colored)} {message}", file=sys.stderr)
    if hint:
        print(f"{_paint('hint:', '36', colored)} {hint}", file=sys.stderr)


def show_obstacles(envelope: Envelope) -> None:
    """Everything that stands against what was asked for, where there is more than one thing."""
    found = envelope.get("obstacles")
    if isinstance(found, list) and len(found) > 1:
        for one in found:
            print(f"  - {one.get('reason')} (accepted: {one.get('accepted')})", file=sys.stderr)


def show_error_envelope(settings: Settings, envelope: Envelope) -> None:
    """For machines: the daemon's error answer, on standard output, if JSON or YAML was wanted."""
    if settings.format is Format.JSON:
        print(json.dumps(envelope, indent=2, ensure_ascii=False))
    elif settings.format is Format.YAML:
        _print_yaml(envelope)


def show_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def waiting(settings: Settings, what: str) -> Iterator[None]:
    """Says on a terminal that something long is under way; silent elsewhere."""
    if settings.format is not Format.TABLE or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    console = Console(stderr=True, no_color=not wants_color(settings, sys.stderr))
    with console.status(what):
        yield


def wants_color(settings: Settings, stream: TextIO) -> bool:
    """Colour only on a terminal, never with NO_COLOR (no-color.org) or TERM=dumb."""
    if not settings.color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def as_text(page: Page) -> str:
    """Plain lines: the verdict, `label: value`, then tab-separated rows under their header."""
    word, sentence = page.verdict
    lines = [f"{word}: {sentence}"]
    lines += [f"{label}: {value}" for label, value in page.facts]
    if page.columns:
        lines.append("\t".join(page.columns))
        lines += ["\t".join(row) for row in page.rows]
    return "\n".join([*lines, *page.notes])


def _print_page(page: Page, *, colored: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_OFF_TERMINAL
    console = Console(
        width=width, no_color=not colored, highlight=False, emoji=False, force_terminal=colored
    )

    def toned(word: str) -> Text:
        return Text(word, style=STYLES.get(TONES.get(word, ""), ""))

    word, sentence = page.verdict
    console.print(Text.assemble(toned(word), f": {sentence}"))
    if page.facts:
        facts = Table.grid(padding=(0, 2))
        for label, value in page.facts:
            facts.add_row(label, Text(value))
        _print_trimmed(console, facts)
    if page.columns:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in page.columns:
            table.add_column(name, no_wrap=name != "NOTE")
        for row in page.rows:
            table.add_row(*(toned(cell) for cell in row))
        console.print()
        _print_trimmed(console, table)
    for note in page.notes:
        console.print(Text(note))


def _print_trimmed(console: Any, table: object) -> None:
    """Print without the blanks that pad the last column."""
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _print_yaml(envelope: Envelope) -> None:
    import yaml

    print(yaml.safe_dump(envelope, sort_keys=False, allow_unicode=True), end="")


def _paint(text: str, code: str, colored: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colored else text
