"""Bodies of requests, and reading them: strict types, no unknown field, the culprit named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ramd.domain.errors import Refused

NODES_MAX = 9
TEXT_CHARACTERS_MAX = 1024

PortNumber = Annotated[int, Field(ge=1, le=65535)]
AbsolutePath = Annotated[
    str, Field(max_length=TEXT_CHARACTERS_MAX, pattern=r"^/[^/\x00-\x1f][^\x00-\x1f]*$")
]


class Request(BaseModel):
    """Base of everything received."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CreateRequest(Request):
    """Make a cluster of `num_nodes` nodes on this host."""

    num_nodes: Annotated[int, Field(ge=1, le=NODES_MAX)]
    primary_port: PortNumber | None = None
    """PostgreSQL's port of node 1; this daemon's own unless given."""
    replica_ports: tuple[PortNumber, ...] | None = None
    """PostgreSQL's ports of nodes 2, 3, …; the primary's plus 1, 2, … unless given."""
    data_dir: AbsolutePath | None = None
    """Node i lives in `data_dir`/node<i>."""
    log_dir: AbsolutePath | None = None
    """Node i logs in `log_dir`/node<i>."""

    @model_validator(mode="before")
    @classmethod
    def _list_as_tuple(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("replica_ports"), list):
            return {**values, "replica_ports": tuple(values["replica_ports"])}
        return values

    @model_validator(mode="after")
    def _ports_agree(self) -> CreateRequest:
        ports = self.replica_ports
        if ports is None:
            return self
        if len(ports) != self.num_nodes - 1:
            raise ValueError(
                f"replica_ports: has {len(ports)} ports for {self.num_nodes - 1} replicas"
            )
        if len({*ports, self.primary_port}) != len(ports) + 1:
            raise ValueError("replica_ports: a port is named twice")
        return self


class DestroyRequest(Request):
    """End the cluster. Data directories are renamed aside unless their removal is asked for by the
    cluster's name."""

    remove_data: bool = False
    cluster_name: Annotated[str, Field(min_length=1, max_length=63)] | None = None

    @model_validator(mode="after")
    def _named(self) -> DestroyRequest:
        if self.remove_data and self.cluster_name is None:
            raise ValueError("cluster_name: is required with remove_data, to name what is deleted")
        return self


class FailoverRequest(Request):
    """Make another node primary: `target_node` (id, name or `replica<n>`), else the best one."""

    target_node: (
        Annotated[int, Field(ge=1, le=NODES_MAX)]
        | Annotated[str, Field(min_length=1, max_length=63)]
        | None
    ) = None
    accept_loss: bool = False
    """Also one that may lack commits which were acknowledged; how much is not known."""


Body = TypeVar("Body", bound=Request)


def read_request(model: type[Body], body: bytes) -> Body:
    """The request in a JSON body; an empty one is `{}`.

    Raises Refused: `bad_request` if it is not a JSON object, `invalid_field` (with the field) if a
    field is unknown, missing or wrong.
    """
    try:
        return model.model_validate_json(body.strip() or b"{}")
    except ValidationError as error:
        raise refusal(error.errors(include_url=False), tuple(model.model_fields)) from error


def refusal(errors: Sequence[Mapping[str, Any]], known: Sequence[str]) -> Refused:
    """The most telling of pydantic's errors as one of ours; `known` are the model's fields."""
    # A misspelt field is also a missing one: name the misspelling.
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    kind, location = str(first["type"]), [part for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return Refused(
            f"the body is not valid JSON: {reason}", code="bad_request", hint="send a JSON object"
        )
    message = str(first["msg"]).removeprefix("Value error, ")
    if not location and kind == "value_error":
        field, _, message = message.partition(": ")
        return _invalid(field, message)
    if not location:
        return Refused(
            "the body is not a JSON object",
            code="bad_request",
            hint=f"an object with any of: {_listed(known)}",
        )
    field = str(location[0])
    if kind == "extra_forbidden":
        return _unknown(field, known)
    if kind == "missing":
        return _invalid(field, "is required", hint=f"known fields: {_listed(known)}")
    index = next((part for part in location[1:] if isinstance(part, int)), None)
    place = field if index is None else f"{field}[{index}]"
    if kind in NOT_AN_ID and isinstance(location[-1], str) and len(location) > 1:
        return _invalid(place, f"must be an id from 1 to {NODES_MAX}, or a name")
    return _invalid(place, _wrong(first))


def _invalid(field: str, wrong: str, *, hint: str = "") -> Refused:
    return Refused(f"{field}: {wrong}", code="invalid_field", field=field, hint=hint)


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known) or "none"


def _unknown(field: str, known: Sequence[str]) -> Refused:
    near = difflib.get_close_matches(field, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known fields: {_listed(known)}"
    return Refused(f"{field}: no such field", code="invalid_field", field=field, hint=hint)


NOT_AN_ID = ("int_type", "int_from_float")
"""Of a field that takes an id or a name: pydantic names the alternative behind the field."""
WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "must be an absolute path",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must be at most {max_length} characters",
}


def _wrong(error: Mapping[str, Any]) -> str:
    words = WORDS.get(str(error["type"]))
    return words.format(**error.get("ctx", {})) if words else str(error["msg"])
