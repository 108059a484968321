"""`ramctrl cluster …`: the cluster as a whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ramctrl import decisions, output, page
from ramctrl.client import ApiError, Client
from ramctrl.options import NodeOption, context_of, meant
from ramctrl.settings import Settings
from ramd.domain.errors import Refused

app = typer.Typer(no_args_is_help=True, help="The cluster as a whole.")

EXIT_OF_STATUS = {"healthy": 0, "degraded": 1, "critical": 2}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@app.command()
def status(ctx: typer.Context) -> None:
    """Verdict, group and nodes. Exit code: 0 healthy, 1 degraded, 2 critical."""
    here = context_of(ctx)
    envelope = here.client.get("/cluster/status")
    output.show(here.settings, envelope, lambda data: page.status_page(data, time.time()))
    raise typer.Exit(exit_of(envelope.get("data")))


app.command("info", hidden=True, deprecated=True)(status)


@app.command()
def health(ctx: typer.Context) -> None:
    """The verdict and its numbers. Exit code: 0 healthy, 1 degraded, 2 critical."""
    here = context_of(ctx)
    envelope = here.client.get("/cluster/health")
    output.show(here.settings, envelope, page.health_page)
    raise typer.Exit(exit_of(envelope.get("data")))


@app.command()
def create(
    ctx: typer.Context,
    *,
    num_nodes: Annotated[int, typer.Option(min=1, max=9, help="How many nodes.")] = 3,
    primary_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="PostgreSQL port of node 1.")
    ] = None,
    replica_ports: Annotated[
        str | None, typer.Option(metavar="PORT,PORT…", help="PostgreSQL ports of the others.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where node1, node2 … keep their data.")
    ] = None,
    log_dir: Annotated[Path | None, typer.Option(help="Where they write their logs.")] = None,
) -> None:
    """Make a cluster on the daemon's host; returns when every replica streams."""
    here = context_of(ctx)
    body = {
        "num_nodes": num_nodes,
        "primary_port": primary_port,
        "replica_ports": _ports(replica_ports),
        "data_dir": _place(here.settings, "--data-dir", data_dir),
        "log_dir": _place(here.settings, "--log-dir", log_dir),
    }
    asked = {key: value for key, value in body.items() if value is not None}
    with output.waiting(here.settings, f"creating {num_nodes} nodes"):
        envelope = here.client.post("/cluster/create", asked)
    output.show(here.settings, envelope, page.created_page)


@app.command()
def destroy(
    ctx: typer.Context,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", "--force", "-f", help="Do not ask for confirmation.")
    ] = False,
    remove_data: Annotated[
        bool, typer.Option("--remove-data", help="Delete the data; needs --cluster-name.")
    ] = False,
    cluster_name: Annotated[str | None, typer.Option(help="The cluster's own name.")] = None,
) -> None:
    """Finish the cluster. Data directories are renamed aside unless --remove-data."""
    here = context_of(ctx)
    if remove_data and not cluster_name:
        raise typer.BadParameter("needs --cluster-name, the name of the cluster to delete")
    if not yes:
        _confirm_destroy(here.client, remove_data=remove_data)
    body: dict[str, Any] = {"remove_data": remove_data}
    if cluster_name:
        body["cluster_name"] = cluster_name
    with output.waiting(here.settings, "destroying the cluster"):
        envelope = here.client.post("/cluster/destroy", body)
    output.show(here.settings, envelope, page.destroyed_page)


@app.command()
def failover(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "--target-node", "--node", help="Id, name or selector of the new primary."
        ),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option(help="Also to one that may lack acknowledged commits.")
    ] = False,
) -> None:
    """Move the primary: to the target, or to the best candidate."""
    here = context_of(ctx)
    body: dict[str, Any] = {}
    if target is not None:
        body["target_node"] = int(target) if target.isdecimal() else target
    if accept_loss:
        body["accept_loss"] = True
    with output.waiting(here.settings, "moving the primary"):
        envelope = here.client.post("/cluster/failover", body)
    output.show(here.settings, envelope, page.failover_page)


app.command("switchover", hidden=True)(failover)
app.command("decisions")(decisions.decisions)
app.command("explain", hidden=True)(decisions.explain)


@app.command()
def promote(
    ctx: typer.Context,
    node: Annotated[str | None, typer.Argument(help="Id, name or selector.")] = None,
    node_option: NodeOption = None,
) -> None:
    """Make this node the primary: a failover to it."""
    failover(ctx, target=meant(node, node_option))


@app.command()
def demote(
    ctx: typer.Context,
    node: Annotated[str | None, typer.Argument(help="Id, name, or 'primary'.")] = None,
    node_option: NodeOption = None,
) -> None:
    """Make the primary a replica: a failover to the best candidate."""
    here = context_of(ctx)
    selector = meant(node, node_option)
    body = {"node_id": int(selector) if selector.isdecimal() else selector}
    with output.waiting(here.settings, "moving the primary"):
        envelope = here.client.post("/cluster/demote", body)
    output.show(here.settings, envelope, page.failover_page)


def exit_of(data: object) -> int:
    """The exit code of a verdict: 0 healthy, 1 degraded, 2 critical or unknown."""
    word = data.get("cluster_status") if isinstance(data, Mapping) else None
    return EXIT_OF_STATUS.get(str(word), EXIT_OF_STATUS["critical"])


def _confirm_destroy(client: Client, *, remove_data: bool) -> None:
    """Asks on a terminal, naming what is at stake; refuses where nobody can answer."""
    if not sys.stdin.isatty():
        raise Refused(
            "destroy asks for confirmation, and standard input is not a terminal",
            code="bad_request",
            hint="add --yes",
        )
    try:
        data = client.get("/cluster/status").get("data") or {}
        name = f"cluster {data.get('cluster_name')} with {data.get('node_count')} nodes"
    except ApiError as error:
        raise Refused(error.message, code=error.code, hint=error.hint) from error
    fate = "DELETE its data" if remove_data else "put its data aside"
    typer.confirm(f"Destroy {name} and {fate}?", abort=True, err=True)


def _ports(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= 65535 for word in words):
        raise typer.BadParameter(f"--replica-ports {text}: expected ports such as 5433,5434")
    return [int(word) for word in words]


def _place(settings: Settings, option: str, path: Path | None) -> str | None:
    """A path on the daemon's host: a relative one means this directory, if that is this host."""
    if path is None:
        return None
    if not path.is_absolute() and settings.host not in LOOPBACK:
        raise typer.BadParameter(f"{option} {path}: must be absolute on {settings.host}")
    return str(path.absolute())
