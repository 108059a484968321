"""Command line over ramctrl.conf over defaults, and every fault named."""

import os
from pathlib import Path

import pytest

from ramctrl.settings import WRITE_TIMEOUT_S, Format, Given, load
from ramctrl.tls import Tls
from ramd.domain.errors import ConfigError


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ramctrl.settings.DEFAULT_FILES", (Path("ramctrl.conf"),))
    return tmp_path


def conf(text: str) -> Path:
    path = Path("ramctrl.conf")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_defaults() -> None:
    settings = load(Given())
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8008, None)
    assert settings.format is Format.TABLE
    assert settings.write_timeout_s == WRITE_TIMEOUT_S
    assert settings.base_url == "http://127.0.0.1:8008"


def test_the_file_beside_is_read() -> None:
    conf(
        "# the west\ndefault_host = db1\ndefault_port = 9000\ndefault_output_format = json\n"
        "request_timeout = 7\nconnection_timeout = 2\ncolored_output = no\nmax_retries = 4\n"
        "default_auth_token = some-token\n"
    )
    settings = load(Given())
    assert (settings.host, settings.port, settings.token) == ("db1", 9000, "some-token")
    assert (settings.connect_timeout_s, settings.read_timeout_s) == (2.0, 7.0)
    assert settings.write_timeout_s == WRITE_TIMEOUT_S
    assert (settings.format, settings.color, settings.retries_max) == (Format.JSON, False, 4)
    assert settings.warnings == ()


def test_the_command_line_wins() -> None:
    conf("default_host = db1\ndefault_port = 9000\nrequest_timeout = 7\n")
    settings = load(Given(host="db2", port=1, timeout_s=0.5, format=Format.YAML))
    assert (settings.host, settings.port, settings.format) == ("db2", 1, Format.YAML)
    assert (settings.read_timeout_s, settings.write_timeout_s) == (0.5, 0.5)


def test_a_url_names_host_and_port() -> None:
    settings = load(Given(api_url="http://[::1]:9"))
    assert (settings.host, settings.port) == ("::1", 9)
    assert settings.base_url == "http://[::1]:9"
    assert load(Given(api_url="http://db1")).port == 8008


@pytest.mark.parametrize("url", ["ftp://db1", "db1:8008", "https://", "http://db1:x"])
def test_a_wrong_url_is_named(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(Given(api_url=url))
    assert url in raised.value.message


def test_the_token_file_wins_over_the_token(tmp_path: Path) -> None:
    conf("default_auth_token = from-the-file\n")
    token = tmp_path / "token"
    token.write_text("from-the-token-file\nrest\n", encoding="utf-8")
    assert load(Given(token_file=token)).token == "from-the-token-file"


def test_no_token_is_sent_when_none_is_wanted() -> None:
    conf("default_auth_token = from-the-file\nauth_method = none\n")
    assert load(Given()).token is None


@pytest.mark.parametrize("content", ["", "\n", "two words\n", "tökén\n", "tab\tbed\n"])
def test_a_token_file_without_a_token(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a token") as raised:
        load(Given(token_file=token))
    assert content.strip() == "" or content.strip() not in raised.value.message


def test_a_missing_token_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the token file"):
        load(Given(token_file=tmp_path / "none"))


def test_a_wanted_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        load(Given(config=tmp_path / "none"))


def test_an_unknown_key_names_the_nearest() -> None:
    conf("default_prt = 1\n")
    with pytest.raises(ConfigError, match="default_port") as raised:
        load(Given())
    assert "ramctrl.conf:1" in raised.value.message


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_token_that_others_may_read_is_warned_of() -> None:
    path = conf("default_auth_token = some-token\n")
    path.chmod(0o644)
    (warning,) = load(Given()).warnings
    assert "chmod 600" in warning
    assert "some-token" not in warning


def test_https_by_url_file_or_option() -> None:
    assert load(Given(api_url="https://db1:9")).base_url == "https://db1:9"
    assert load(Given(ca_file=Path("/ca"))).tls == Tls(ca_file=Path("/ca"))
    conf("ssl_enabled = true\nssl_ca_file = /etc/ca.crt\nverify_ssl = false\n")
    assert load(Given()).base_url == "https://127.0.0.1:8008"
    assert load(Given()).tls == Tls(verify=False, ca_file=Path("/etc/ca.crt"))
    assert load(Given(ca_file=Path("/mine"))).tls == Tls(verify=False, ca_file=Path("/mine"))
    assert load(Given(api_url="http://db1")).tls is None
