"""The global options: what they are, and that they may stand before or after the command.

Lives here: `hoist`, which moves them to the front, the context that commands get, and how a command
is told which node (`meant`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

from ramctrl.client import Client
from ramctrl.settings import Settings

VALUED = frozenset(
    {"--host", "--port", "--token-file", "--timeout", "-t", "--config", "-c", "--format"}
    | {"-u", "--api-url", "--ca-file"}
)
FLAGS = frozenset({"-j", "--json", "--table"})
NodeOption: TypeAlias = Annotated[
    str | None, typer.Option("--node", "-n", help="The same as an option.")
]
ANY_NODE = "an id, a name, 'primary' or 'replica1'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every command gets."""

    settings: Settings
    client: Client


def context_of(ctx: typer.Context) -> Context:
    """The context that the root command has put in place."""
    found = ctx.find_object(Context)
    assert found is not None
    return found


def meant(node: str | None, node_option: str | None, accepted: str = ANY_NODE) -> str:
    """The node that an argument or the option names. Raises BadParameter if neither does."""
    selector = node or node_option
    if not selector:
        raise typer.BadParameter(f"which node? {accepted}")
    return selector


def hoist(arguments: Sequence[str]) -> list[str]:
    """The same arguments with the global options first, in their order.

    What follows `--` stays where it is. A global option's value is never looked into.
    """
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == "--":
            rest += arguments[position:]
            break
        taken = 2 if argument in VALUED else 1
        is_global = taken == 2 or argument in FLAGS or argument.split("=", 1)[0] in VALUED
        (front if is_global else rest).extend(arguments[position : position + taken])
        position += taken
    return front + rest
