"""TLS, and protections that this version does not have: switched on, it refuses to start."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ramd.config.keys import Availability, Key, OptionalPath, Switch, Topic, Word


class SecurityKeys(Topic):
    """Security."""

    ssl_enabled: Annotated[
        Switch,
        Key(
            "TLS for everything the daemon says: the REST interface and the metrics by HTTPS only, "
            "and daemons prove themselves to each other by certificates (TLS 1.3).",
            danger="The same on every node: with and without it daemons cannot speak to each "
            "other.",
        ),
    ] = False
    ssl_cert_file: Annotated[
        OptionalPath,
        Key(
            "Certificate of this node, PEM, followed by those in between, if any.",
            reload=True,
            accepts="an absolute path",
            example="/etc/ramd/tls/node.crt",
        ),
    ] = None
    ssl_key_file: Annotated[
        OptionalPath,
        Key(
            "Its private key, PEM, without a password.",
            reload=True,
            accepts="an absolute path of a file that only its owner can read",
            example="/etc/ramd/tls/node.key",
        ),
    ] = None
    ssl_ca_file: Annotated[
        OptionalPath,
        Key(
            "The authority that has signed the certificates of all nodes, PEM.",
            reload=True,
            default_text="ssl_cert_file, which must be self-signed then and the same everywhere",
            accepts="an absolute path",
            example="/etc/ramd/tls/ca.crt",
            danger="Whoever has a certificate of this authority and the cluster secret may speak as"
            " a node: an authority of the cluster's own.",
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
