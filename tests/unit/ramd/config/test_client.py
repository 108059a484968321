"""ramctrl's keys: defaults, bounds, and that pydantic is not needed for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from ramd.config.client import ClientConfig, load_client, load_client_text
from ramd.config.faults import InvalidConfigError


def test_values_are_read() -> None:
    config = load_client_text(
        "default_host = [::1]\ndefault_port = 8010\ncolored_output = off\n"
        "default_output_format = JSON\nmax_retries = 0\ndefault_auth_token = long-enough\n"
        "default_auth_token_file = /etc/ramctrl/token\nauth_method = none\n"
    )
    assert (config.default_host, config.default_port, config.max_retries) == ("::1", 8010, 0)
    assert (config.colored_output, config.default_output_format) == (False, "json")
    assert config.default_auth_token_file == Path("/etc/ramctrl/token")
    assert "long-enough" not in repr(config)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("default_prt = 1", "did you mean default_port?"),
        ("zzzzqqqq = 1", "the keys are default_host"),
        ("default_port = 0", "'0' cannot be used; a whole number from 1 to 65535"),
        ("default_port = 1e3", "cannot be used"),
        ("default_host = a b", "an IP address or host name"),
        ("default_output_format = xml", "one of: table, json, yaml, text"),
        ("colored_output = maybe", "true or false"),
        ("ssl_enabled = maybe", "true or false"),
        ("ssl_ca_file = relative", "an absolute path"),
        ("auth_method = basic", "no other method"),
        ("default_auth_token = abc def", "its value cannot be used"),
    ],
)
def test_faults_name_line_key_and_remedy(line: str, says: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_client_text(f"# first\n{line}\n", "c.conf")
    assert str(caught.value.faults[0]).startswith(f"c.conf:2: {line.split(' ', maxsplit=1)[0]}: ")
    assert says in caught.value.message
    assert "abc def" not in caught.value.message


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ramctrl.conf"
    file.write_text("a\nb = 1\ndefault_port = x\n")
    with pytest.raises(InvalidConfigError) as caught:
        load_client(file)
    assert [fault.origin.line for fault in caught.value.faults] == [1, 2, 3]


def test_not_checking_who_answers_is_warned_of() -> None:
    assert load_client_text("verify_ssl = no\n").warnings == (
        "verify_ssl: off: whoever answers is taken for the daemon",
    )
    assert load_client_text("") == ClientConfig()


def test_it_needs_no_pydantic() -> None:
    code = "import sys, ramd.config.client; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
