"""Protections that this version does not have: switched on, the daemon refuses to start."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ramd.config.keys import Availability, Key, OptionalPath, Switch, Topic, Word


class SecurityKeys(Topic):
    """Security."""

    ssl_enabled: Annotated[
        Switch, Key("Serve HTTP by TLS only.", availability=Availability.SECURITY)
    ] = False
    ssl_cert_file: Annotated[
        OptionalPath,
        Key(
            "Certificate of the daemon; without effect while `ssl_enabled` is false.",
            availability=Availability.PLANNED,
            accepts="an absolute path",
        ),
    ] = None
    ssl_key_file: Annotated[
        OptionalPath,
        Key(
            "Private key of the daemon; without effect while `ssl_enabled` is false.",
            availability=Availability.PLANNED,
            accepts="an absolute path",
        ),
    ] = None
    ssl_ca_file: Annotated[
        OptionalPath,
        Key(
            "Authorities whose certificates are trusted; without effect while `ssl_enabled` is "
            "false.",
            availability=Availability.PLANNED,
            accepts="an absolute path",
        ),
    ] = None
    ssl_mode: Annotated[
        Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        Word,
        Key(
            "TLS between RAMD and PostgreSQL; only modes that do not insist on it can be honoured.",
            availability=Availability.SECURITY,
            harmless=("disable", "allow"),
            accepts="disable, allow or prefer",
        ),
    ] = "prefer"
    require_ssl: Annotated[
        Switch, Key("Refuse clients without TLS.", availability=Availability.SECURITY)
    ] = False
    verify_ssl: Annotated[
        Switch, Key("Check certificates of others.", availability=Availability.SECURITY)
    ] = False
    kerberos_service: Annotated[
        str,
        Field(max_length=200),
        Key("Service name for Kerberos.", availability=Availability.SECURITY),
    ] = ""
    pam_service: Annotated[
        str,
        Field(max_length=200),
        Key("Service name for PAM.", availability=Availability.SECURITY),
    ] = ""
    ldap_server: Annotated[
        str,
        Field(max_length=1000),
        Key(
            "Server for LDAP; every other key that begins with `ldap_` is refused likewise.",
            availability=Availability.SECURITY,
        ),
    ] = ""
