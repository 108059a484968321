"""What a key accepts, in words, and pydantic's errors in our own.

Lives here: the sentences for people, used by messages and by the reference alike.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from pydantic.fields import FieldInfo

from ramd.config.faults import shown
from ramd.config.keys import Availability, Key


def expected(field: FieldInfo, key: Key) -> str:
    """What would be right for this key: 'a whole number of milliseconds from 100 to 60000'."""
    kind = _kind(field)
    if get_origin(kind) is Literal:
        words = [str(word) for word in get_args(kind) if word != ""]
        return key.accepts or f"one of: {', '.join(words)}"
    if kind is bool:
        return "true or false"
    if kind in {int, float}:
        return _number(field, key, "a whole number" if kind is int else "a number")
    if key.accepts:
        return key.accepts
    if kind is Path:
        return "an absolute path"
    longest = next((item.max_length for item in field.metadata if isinstance(item, MaxLen)), None)
    return f"text of at most {longest} characters" if longest else "text"


def _number(field: FieldInfo, key: Key, words: str) -> str:
    if key.unit:
        words += f" of {key.unit}" if key.unit != "percent" else " (percent)"
    low, high = bounds(field)
    return f"{words} from {low} to {high}" if low is not None and high is not None else words


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """(least, greatest) value, None where there is no bound."""
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    return low, high


def _kind(field: FieldInfo) -> Any:
    """The field's type without None and without what stands beside it."""
    kind: Any = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        kind = next(arg for arg in get_args(kind) if arg is not NoneType)
    origin = get_origin(kind)
    return kind if origin is Literal else origin or kind


def complaint(error_type: str, message: str, given: object, key: Key) -> str:
    """What is wrong with a value, from one error of pydantic; a secret is not printed."""
    if error_type == "value_error":
        return message.removeprefix("Value error, ")
    text = "its value" if key.secret else shown(str(given))
    if error_type == "missing":
        return "is required"
    if error_type == "greater_than_equal":
        return f"{text} is too small"
    if error_type == "less_than_equal":
        return f"{text} is too large"
    if error_type == "string_too_short" or given is None or given == "":
        return "has no value"
    if error_type == "string_too_long":
        return f"{text} is too long"
    if error_type == "literal_error":
        return f"{text} is not one of its words"
    return f"{text} cannot be used"


def written(value: object) -> str:
    """A value as it stands in a file (without quotes)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return " ".join(str(word) for word in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def is_off(value: object, field: FieldInfo, key: Key) -> bool:
    """Does the value switch nothing on that this version does not have?"""
    if key.availability is Availability.AVAILABLE:
        return True
    return value == field.default or value in key.harmless
