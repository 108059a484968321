"""Writing a configuration: what is written is what is read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.config.load import load_text
from ramd.config.render import given_values, node_list, render_conf

BASE = "postgresql_data_dir = /srv/pg/data\n"
LIST = "".join(
    f"node_{n}_hostname = localhost\nnode_{n}_port = {5431 + n}\n"
    f"node_{n}_raft_port = {7399 + n}\nnode_{n}_http_port = {8007 + n}\n"
    for n in (1, 2, 3)
)


def test_what_is_written_is_what_is_read() -> None:
    original = load_text(
        BASE
        + LIST
        + "node_id = 2\nauto_failover_enabled = off\nclock_drift_percent = 0.5\n"
        + "initdb_options = \"--no-sync --username-map='a b'\"\ntiming_profile = fast\n"
        + 'postgresql_password = "p # \\" w"\nlog_file = /tmp/x.log\n',
        {},
    )
    text = render_conf(given_values(original) | node_list(original.members()), heading="Made\nby")
    assert text.startswith("# Made\n# by\n\nnode_id = 2\n")
    again = load_text(text, {})
    assert again == original
    assert again.initdb_options == ("--no-sync", "--username-map=a b")


def test_order_and_form() -> None:
    text = render_conf(
        {
            "node_1_hostname": "localhost",
            "http_port": 8009,
            "postgresql_data_dir": Path("/x y"),
            "node_id": 1,
            "nofailover": True,
            "log_file": None,
        }
    )
    assert text == (
        "node_id = 1\nnofailover = true\n\npostgresql_data_dir = /x y\n\nhttp_port = 8009\n\n"
        "node_1_hostname = localhost\n"
    )


def test_old_names_are_written_as_the_present_ones() -> None:
    assert render_conf({"rale_port": "7401"}) == "raft_port = 7401\n"
    assert render_conf({"raft_port": 1, "rale_port": "7401"}) == "raft_port = 1\n"


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not a key: bogus"):
        render_conf({"bogus": 1})
    with pytest.raises(ValueError, match="line break"):
        render_conf({"cluster_name": "a\nnode_id = 2"})


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=60))
def test_no_password_escapes_its_line(password: str) -> None:
    text = render_conf({"postgresql_data_dir": "/x/data", "postgresql_password": password})
    assert load_text(text, {}).postgresql_password == password
