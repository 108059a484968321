"""`ramctrl replication …`: how commits wait for replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ramctrl import output
from ramctrl.options import context_of
from ramctrl.page import NONE, Page

app = typer.Typer(no_args_is_help=True, help="How commits wait for replicas.")

COLUMNS = ("ID", "NAME", "CONFIRMS", "STREAMS", "FLUSHED", "COPY")


@app.command()
def status(ctx: typer.Context) -> None:
    """Whom commits wait for, and how far every replica is."""
    here = context_of(ctx)
    output.show(here.settings, here.client.get("/sync-standbys/status"), sync_page)


@app.command("set-mode")
def set_mode(
    ctx: typer.Context,
    mode: Annotated[str | None, typer.Argument(help="auto, on or off.")] = None,
    *,
    count: Annotated[
        int | None,
        typer.Option("--count", "--num-sync-standbys", help="How many replicas must confirm."),
    ] = None,
    enforce: Annotated[
        bool | None,
        typer.Option(
            "--enforce/--no-enforce", help="Let writes wait rather than go on with fewer."
        ),
    ] = None,
    timeout_ms: Annotated[
        int | None,
        typer.Option("--wait-ms", help="How long lost replicas are waited for, if not enforced."),
    ] = None,
) -> None:
    """Change whether, and for how many replicas, commits wait."""
    body = {
        "mode": mode,
        "num_sync_standbys": count,
        "enforce_sync_standbys": enforce,
        "sync_replication_timeout_ms": timeout_ms,
    }
    given = {key: value for key, value in body.items() if value is not None}
    if not given:
        raise typer.BadParameter("what? a mode, --count, --enforce or --wait-ms")
    _change(ctx, "/replication/sync", given, "changing how commits wait")


@app.command()
def add(ctx: typer.Context, node: Annotated[str, typer.Argument(help="Name of the node.")]) -> None:
    """Let a replica confirm commits again."""
    _change(ctx, "/sync-standbys/add", {"node_name": node}, f"adding {node}")


@app.command()
def remove(
    ctx: typer.Context, node: Annotated[str, typer.Argument(help="Name of the node.")]
) -> None:
    """Do not wait for a replica any more."""
    _change(ctx, "/sync-standbys/remove", {"node_name": node}, f"removing {node}")


def _change(ctx: typer.Context, path: str, body: dict[str, Any], what: str) -> None:
    here = context_of(ctx)
    with output.waiting(here.settings, what):
        envelope = here.client.post(path, body)
    output.show(here.settings, envelope, sync_page)


def sync_page(data: Mapping[str, Any]) -> Page:
    """`replication status`."""
    obstacle, changing = data.get("obstacle"), data.get("changing_to")
    word = "healthy" if data.get("proven") and not changing else "degraded"
    facts = [
        ("mode", str(data.get("mode"))),
        ("wanted", f"{data.get('num_sync_standbys')} must confirm"),
        ("too few", _too_few(data)),
    ]
    if changing:
        facts.append(("changing to", str(changing)))
    if obstacle:
        facts.append(("waits for", str(obstacle)))
    return Page(
        verdict=(word, f"commits wait for {data.get('waits_for')}"),
        facts=tuple(facts),
        columns=COLUMNS,
        rows=tuple(_row(node) for node in data.get("nodes") or ()),
    )


def _too_few(data: Mapping[str, Any]) -> str:
    if data.get("enforce_sync_standbys"):
        return "writes wait"
    return f"writes wait {data.get('sync_replication_timeout_ms')} ms, then go on without them"


def _row(node: Mapping[str, Any]) -> tuple[str, ...]:
    confirms = "yes" if node.get("member") else "no" if node.get("may_confirm") else "never"
    return (
        str(node.get("id")),
        str(node.get("name")),
        confirms,
        "yes" if node.get("streaming") else "no",
        str(node.get("flushed_lsn") or NONE),
        str(node.get("copy_id") or NONE),
    )
