"""`ramctrl`: the tree of commands, the global options, and the exit codes.

Start reading at `main`. Each group is in the module of its name; short and older spellings are
aliases of the same functions, here and only here.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ramctrl import cluster, decisions, members, nodes, output, pgraft, quorum, replication
from ramctrl.client import ApiError, Client
from ramctrl.options import Context, hoist
from ramctrl.settings import Format, Given, load
from ramd.domain.errors import CODES, RamdError

EPILOG = "Global options may stand before or after the command. Exit codes: docs/ramctrl.md."

app = typer.Typer(
    name="ramctrl",
    help="Control a RAMD cluster through the API of any of its daemons.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cluster.app, name="cluster")
app.add_typer(nodes.app, name="nodes")
app.add_typer(nodes.app, name="node", hidden=True)
app.add_typer(quorum.app, name="quorum")
app.add_typer(pgraft.app, name="pgraft")
app.add_typer(replication.app, name="replication")

shown = typer.Typer(no_args_is_help=True, help="Other spellings.")
app.add_typer(shown, name="show", hidden=True)
shown.command("cluster")(cluster.status)
shown.command("status")(cluster.status)
shown.command("nodes")(nodes.list_nodes)
shown.command("replication")(replication.status)
replica = typer.Typer(no_args_is_help=True, help="Other spellings.")
app.add_typer(replica, name="replica", hidden=True)
replica.command("add")(members.add)
replica.command("remove")(members.remove)
app.command("status", hidden=True)(cluster.status)
app.command("explain")(decisions.explain)
app.command("decisions", hidden=True)(decisions.decisions)
app.command("promote", hidden=True)(cluster.promote)
app.command("demote", hidden=True)(cluster.demote)
app.command("switchover", hidden=True)(cluster.failover)
app.command("failover", hidden=True)(cluster.failover)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ramctrl {importlib.metadata.version('ramd')}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    host: Annotated[str | None, typer.Option(help="Daemon to ask. (default 127.0.0.1)")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Its http_port. (default 8008)")
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option("--api-url", "-u", help="http://host:port or https://host:port in one."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the daemon's http_auth_token.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Ask by HTTPS; authority of the daemons' certificates.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", "-t", min=0.001, max=86400, help="Seconds to wait for an answer."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="(default ramctrl.conf, if it is there)")
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="(default table)")] = None,
    json: Annotated[bool, typer.Option("--json", "-j", help="As --format json.")] = False,
    table: Annotated[bool, typer.Option("--table", hidden=True)] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    given = Given(
        host=host,
        port=port,
        api_url=api_url,
        token_file=token_file,
        timeout_s=timeout,
        config=config,
        ca_file=ca_file,
        format=form or (Format.JSON if json else Format.TABLE if table else None),
    )
    settings = load(given)
    for warning in settings.warnings:
        output.show_warning(warning)
    context = Context(settings=settings, client=Client(settings))
    if isinstance(ctx.obj, list):
        ctx.obj.append(context)
    ctx.obj = context


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code. Expected errors are printed, never raised."""
    reached: list[Context] = []
    try:
        app(args=hoist(arguments), prog_name="ramctrl", obj=reached)
    except RamdError as error:
        settings = reached[0].settings if reached else None
        if settings is not None and isinstance(error, ApiError):
            output.show_error_envelope(settings, error.envelope)
        output.show_error(error.message, hint=error.hint, settings=settings)
        if isinstance(error, ApiError):
            output.show_obstacles(error.envelope)
        return CODES[error.code].exit_code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
