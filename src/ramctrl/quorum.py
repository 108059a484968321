"""`ramctrl quorum …`: the group that agrees on everything, and going on without it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ramctrl import output
from ramctrl.cluster import exit_of
from ramctrl.options import context_of
from ramctrl.quorum_page import recovery_page, status_page
from ramd.domain.errors import Refused

app = typer.Typer(no_args_is_help=True, help="The group that agrees on everything.")


@app.command()
def status(ctx: typer.Context) -> None:
    """Who votes and how far each member is. Exit code: 0 healthy, 1 degraded, 2 critical."""
    here = context_of(ctx)
    envelope = here.client.get("/quorum/status")
    output.show(here.settings, envelope, status_page)
    raise typer.Exit(exit_of(envelope.get("data")))


@app.command()
def recover(
    ctx: typer.Context,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it; without this only the plan is shown.")
    ] = False,
    cluster_name: Annotated[
        str | None, typer.Option(help="The cluster's own name; asked for if it is left out.")
    ] = None,
    confirmed_off: Annotated[
        str | None,
        typer.Option(
            metavar="NODE,NODE…", help="Exactly the other voters: their hosts are off for good."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also on a node that had no vote.")
    ] = False,
) -> None:
    """Go on with the daemon's own node alone after the majority was lost for good.

    The others' hosts must be off and stay off: two of them that come back together are a majority
    of the old group, and would accept writes beside this node.
    """
    here = context_of(ctx)
    body: dict[str, Any] = {"apply": False, "force": force}
    envelope = here.client.post("/quorum/recover", body)
    if not yes:
        output.show(here.settings, envelope, recovery_page)
        return
    data = envelope.get("data") or {}
    body |= {
        "apply": True,
        "cluster_name": cluster_name or _ask_name(data),
        "confirmed_off": _nodes(confirmed_off) if confirmed_off else _ask_off(data),
    }
    with output.waiting(here.settings, "waiting for the last lease to end, then going on alone"):
        envelope = here.client.post("/quorum/recover", body)
    output.show(here.settings, envelope, recovery_page)


def _ask_name(data: Mapping[str, Any]) -> str:
    """The name as the person types it: what is at stake is shown before."""
    _require_terminal("--cluster-name")
    nodes = ", ".join(str(node.get("name")) for node in data.get("lost_nodes") or ())
    typer.echo(f"Given up for ever: {nodes}. See the plan without --yes.", err=True)
    return str(typer.prompt("Name of the cluster", err=True))


def _ask_off(data: Mapping[str, Any]) -> list[str]:
    _require_terminal("--confirmed-off")
    voters = [str(n.get("name")) for n in data.get("lost_nodes") or () if n.get("voter")]
    for name in voters:
        typer.confirm(f"Is the host of {name} off, and will it stay off?", abort=True, err=True)
    return voters


def _require_terminal(option: str) -> None:
    if not sys.stdin.isatty():
        raise Refused(
            "recover asks for confirmation, and standard input is not a terminal",
            code="bad_request",
            hint=f"add {option}",
        )


def _nodes(text: str) -> list[str | int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [int(word) if word.isdecimal() else word for word in words]
