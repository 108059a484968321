"""`ramctrl pgraft …`: the library that a server loads, on this very host; no daemon is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramctrl import output
from ramctrl.options import context_of
from ramctrl.page import Page
from ramd.domain.errors import ConfigError

if TYPE_CHECKING:
    from pgraft.extension.build import Build

COPY_BEFORE_MAJOR = 18
"""Older servers look for what CREATE EXTENSION needs in their own directories only."""

app = typer.Typer(no_args_is_help=True, help="The extension of the server on this host.")

PgConfig = Annotated[
    Path, typer.Option("--pg-config", help="The server's own pg_config.", exists=True)
]


@app.command()
def install(
    ctx: typer.Context,
    pg_config: PgConfig,
    *,
    headers: Annotated[
        Path | None, typer.Option(help="Directory of postgres.h, if pg_config does not know.")
    ] = None,
    copy: Annotated[
        bool | None,
        typer.Option(help="Copy into the server's directories. (default: before version 18)"),
    ] = None,
) -> None:
    """Build the extension for a server; ramd finds it at its next start."""
    from pgraft.extension import build as builds
    from pgraft.extension.install import install as copy_to
    from pgraft.extension.install import places_of

    copied: tuple[Path, ...] = ()
    with _faults_told():
        made = builds.build(pg_config.absolute(), builds.build_root(), headers=headers)
        if copy or (copy is None and made.major < COPY_BEFORE_MAJOR):
            copied = copy_to(made, places_of(pg_config.absolute()))
    _show(ctx, _facts(made) | {"copied": [str(path) for path in copied]}, "installed")


@app.command()
def status(ctx: typer.Context, pg_config: PgConfig) -> None:
    """Whether the extension of this version is built for a server."""
    from pgraft.extension import build as builds

    with _faults_told():
        version = builds.version_of(pg_config.absolute())
        made = builds.find([builds.build_root()], version)
    if made is None:
        raise ConfigError(
            f"the extension is not built for PostgreSQL {version}",
            hint=f"ramctrl pgraft install --pg-config {pg_config}, or start ramd, which builds it",
        )
    _show(ctx, _facts(made), "built")


@app.command()
def uninstall(ctx: typer.Context, pg_config: PgConfig) -> None:
    """Remove copies from the server's directories, where no server needs them any more."""
    from pgraft.extension.install import places_of
    from pgraft.extension.install import uninstall as remove

    with _faults_told():
        gone = remove(places_of(pg_config.absolute()))
    _show(ctx, {"removed": [str(path) for path in gone]}, "removed")


@contextmanager
def _faults_told() -> Iterator[None]:
    """What the builder finds wrong, as an error of this command."""
    from pgraft.extension.build import BuildError

    try:
        yield
    except BuildError as error:
        raise ConfigError(error.message, hint=error.hint) from error


def _facts(made: Build) -> dict[str, Any]:
    return {
        "library": str(made.library),
        "share_dir": str(made.share),
        "postgresql_major": made.major,
    }


def _show(ctx: typer.Context, data: dict[str, Any], word: str) -> None:
    """In the shape of every other answer, though no daemon gave it."""

    def page(facts: Any) -> Page:
        shown = {k: ", ".join(v) if isinstance(v, list) else str(v) for k, v in facts.items()}
        pairs = tuple((name.replace("_", " "), value or "none") for name, value in shown.items())
        return Page(verdict=("done", word), facts=pairs)

    envelope = {"status": "success", "code": 200, "message": word, "data": data}
    output.show(context_of(ctx).settings, envelope, page)
