"""`ramctrl nodes add | remove | promote-voter | reinit`: members come, go, or begin anew. The tree
is in `nodes`."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ramctrl import output
from ramctrl.options import NodeOption, context_of, meant
from ramctrl.page import Page
from ramd.domain.errors import Refused

TOKEN_KEY = "join_token_file"
CONF_NOTE = (
    "Its ramd.conf (choose postgresql_data_dir; the secret file is a copy, mode 0600; the token"
    " goes into join_token_file, mode 0600):"
)


def add(
    ctx: typer.Context,
    *,
    node_id: Annotated[
        int | None, typer.Option(min=1, max=9, help="(default the lowest free id)")
    ] = None,
    hostname: Annotated[
        str | None, typer.Option(help="Where the others reach it. (default the daemon's own host)")
    ] = None,
    pg_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of its PostgreSQL.")
    ] = None,
    raft_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of its daemon's channel.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of its REST interface.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="(default node<id>)")] = None,
    priority: Annotated[int, typer.Option(min=0, max=100, help="As candidate for primary.")] = 50,
    nofailover: Annotated[
        bool, typer.Option("--nofailover", help="Never promote it automatically.")
    ] = False,
    replace: Annotated[
        str | None,
        typer.Option(help="The member whose place it takes, once it can vote: id or name."),
    ] = None,
    save_token: Annotated[
        Path | None,
        typer.Option(help="Write the token to this new file, mode 0600, instead of showing it."),
    ] = None,
) -> None:
    """Let a node join: answers with a token, good once, and the lines of its ramd.conf."""
    here = context_of(ctx)
    body: dict[str, Any] = {
        "node_id": node_id,
        "hostname": hostname,
        "port": pg_port,
        "raft_port": raft_port,
        "http_port": http_port,
        "name": name,
        "priority": priority,
        "nofailover": nofailover,
        "replace": int(replace) if replace and replace.isdecimal() else replace,
    }
    _absent(save_token)
    asked = {key: value for key, value in body.items() if value is not None}
    envelope = here.client.post("/cluster/add-node", asked)
    if save_token is not None:
        envelope["data"] = _saved(envelope["data"], save_token.absolute())
    output.show(here.settings, envelope, added_page)


def _absent(path: Path | None) -> None:
    if path is not None and path.exists():
        raise Refused(f"{path} exists: it is not overwritten", code="conflict")


def _saved(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same answer with the token in a file of its own."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Refused(
            f"{path} cannot be made: {error.strerror}",
            code="conflict",
            hint="the node is invited all the same: add it again to get another token",
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{data['join_token']}\n")
    lines = [line for line in data["conf"] if not line.startswith(f"{TOKEN_KEY} =")]
    return {**data, "join_token": "", "conf": [*lines, f"{TOKEN_KEY} = {path}"]}


def added_page(data: Mapping[str, Any]) -> Page:
    """`nodes add`: what to do on the new node."""
    replaces = data.get("replaces_node_id")
    place = "" if replaces is None else f", in the place of node {replaces}"
    facts = [
        ("address", f"{data.get('hostname')}:{data.get('port')}"),
        ("joins until", str(data.get("expires_at"))),
    ]
    if data.get("join_token"):
        facts.append(("join token", str(data["join_token"])))
    return Page(
        verdict=("done", f"node {data.get('node_id')} ({data.get('name')}) may join{place}"),
        facts=tuple(facts),
        notes=(
            "",
            CONF_NOTE,
            *(str(line) for line in data.get("conf") or ()),
        ),
    )


def remove(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(help="Id or name; a node that never joined, too.")
    ] = None,
    node_option: NodeOption = None,
) -> None:
    """Take a node out of the group. Its server is stopped, its data stay where they are."""
    selector = meant(node, node_option, "an id or a name")
    here = context_of(ctx)
    body = {"node_id": int(selector)} if selector.isdecimal() else {"name": selector}
    with output.waiting(here.settings, f"removing node {selector}"):
        envelope = here.client.post("/cluster/remove-node", body)
    output.show(here.settings, envelope, removed_page)


def removed_page(data: Mapping[str, Any]) -> Page:
    """`nodes remove`."""
    who = f"node {data.get('node_removed')} ({data.get('name')})"
    if data.get("invitation_withdrawn"):
        return Page(verdict=("done", f"{who} had not joined and may join no more"))
    return Page(
        verdict=("done", f"{who} is no member any more"),
        notes=("its data are untouched; to bring it back: ramctrl nodes add",),
    )


def promote_voter(
    ctx: typer.Context, node: Annotated[int, typer.Argument(min=1, max=9, help="Id.")]
) -> None:
    """Give a learner a vote now; the coordinator does it by itself when the node has caught up."""
    here = context_of(ctx)
    envelope = here.client.post("/cluster/add-voter", {"node_id": node})
    output.show(here.settings, envelope, voter_page)


def voter_page(data: Mapping[str, Any]) -> Page:
    """`nodes promote-voter`."""
    voters = ", ".join(str(node) for node in data.get("voters") or ())
    return Page(verdict=("done", f"node {data.get('node_id')} votes"), facts=(("voters", voters),))


def reinit(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(help="Id, name, or 'replica1', 'replica2' …")
    ] = None,
    node_option: NodeOption = None,
) -> None:
    """Keep a replica's data directory aside, and clone the primary. Refused for the primary."""
    selector = meant(node, node_option, "an id, a name or 'replica1'")
    here = context_of(ctx)
    path = f"/nodes/{urllib.parse.quote(selector, safe='')}/reinit"
    with output.waiting(here.settings, f"making node {selector} anew"):
        envelope = here.client.post(path, {})
    output.show(here.settings, envelope, reinit_page)


def reinit_page(data: Mapping[str, Any]) -> Page:
    """`nodes reinit`."""
    number = data.get("node_reinitialized")
    who = f"node {number} ({data.get('name')})"
    if data.get("done"):
        return Page(
            verdict=("done", f"{who} streams with a new copy"),
            notes=("the old data directory is kept beside it, as <directory>.aside-<time>",),
        )
    return Page(
        verdict=("rejoining", f"{who} is being made anew: {data.get('activity') or 'no word yet'}"),
        notes=(f"it goes on by itself; look: ramctrl nodes show {number}",),
    )
