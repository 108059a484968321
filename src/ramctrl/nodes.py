"""`ramctrl nodes …`: one node at a time."""

from __future__ import annotations

import urllib.parse
from typing import Annotated

import typer

from ramctrl import members, output, page
from ramctrl.options import NodeOption, context_of, meant

app = typer.Typer(no_args_is_help=True, help="One node at a time.")


@app.command("list")
def list_nodes(ctx: typer.Context) -> None:
    """All nodes with role, state, lag and when they were last seen."""
    here = context_of(ctx)
    output.show(here.settings, here.client.get("/nodes"), page.nodes_page)


@app.command()
def show(
    ctx: typer.Context,
    node: Annotated[
        str | None, typer.Argument(help="Id, name, 'primary', or 'replica1', 'replica2' …")
    ] = None,
    node_option: NodeOption = None,
) -> None:
    """Everything known about one node."""
    selector = meant(node, node_option)
    here = context_of(ctx)
    envelope = here.client.get(f"/nodes/{urllib.parse.quote(selector, safe='')}")
    output.show(here.settings, envelope, page.node_page)


app.command("status", hidden=True, deprecated=True)(show)
app.command("add")(members.add)
app.command("remove")(members.remove)
app.command("promote-voter")(members.promote_voter)
app.command("reinit")(members.reinit)
