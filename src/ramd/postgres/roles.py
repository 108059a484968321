"""The roles RAMD logs in with: the replication user, and the superuser's password if one is set."""

from __future__ import annotations

from ramd.postgres.options import ServerOptions
from ramd.postgres.quote import identifier, literal
from ramd.postgres.session import Session

STATEMENT_TIMEOUT_MS = 10_000

UNRAISED = """
SELECT set_config('pgraft.min_synchronous_commit', 'local', false)
 WHERE current_setting('pgraft.min_synchronous_commit', true) IS NOT NULL
"""
"""What RAMD needs itself must not wait for replicas, which need it to come back."""

FILE_READERS = (
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
)
"""What pg_rewind calls on its source (documentation of pg_rewind, Notes)."""


async def ensure_roles(session: Session, options: ServerOptions) -> None:
    """On a primary. Idempotent; passwords travel as SCRAM verifiers."""
    role = options.replication_user
    await session.query(UNRAISED, timeout_ms=STATEMENT_TIMEOUT_MS)
    found = await session.query(
        f"SELECT rolreplication AND rolcanlogin FROM pg_roles WHERE rolname = {literal(role)}",
        timeout_ms=STATEMENT_TIMEOUT_MS,
    )
    for statement in statements(session, options, exists=bool(found)):
        await session.query(statement, timeout_ms=STATEMENT_TIMEOUT_MS)


def statements(session: Session, options: ServerOptions, *, exists: bool) -> list[str]:
    """What makes the roles as they should be."""
    role = identifier(options.replication_user)
    wanted = [f"{'ALTER' if exists else 'CREATE'} ROLE {role} LOGIN REPLICATION"]
    if options.replication_user != options.superuser:
        wanted.append(f"GRANT pg_checkpoint TO {role}")
        wanted += [f"GRANT EXECUTE ON FUNCTION {name} TO {role}" for name in FILE_READERS]
    if options.replication_password is not None:
        wanted.append(password(session, options.replication_user, options.replication_password))
    if options.superuser_password is not None:
        wanted.append(password(session, options.superuser, options.superuser_password))
    return wanted


def password(session: Session, role: str, word: str) -> str:
    """The statement that sets a password without telling it."""
    verifier = session.encrypted_password(role, word)
    return f"ALTER ROLE {identifier(role)} PASSWORD {literal(verifier)}"
