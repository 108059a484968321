"""The generated files are up to date, complete, and load."""

from pathlib import Path

import pytest

from ramd.config.client import CLIENT_KEYS, ClientConfig, load_client_text
from ramd.config.lines import parse
from ramd.config.load import load_text
from ramd.config.model import KEYS
from ramd.config.names import ALIASES, ENVIRONMENT_KEYS
from ramd.config.nodes import NODE_FIELDS
from ramd.config.reference import main, products, reference_page, sample_client_conf, sample_conf

PROJECT = Path(__file__).parents[4]


@pytest.mark.parametrize("name", products())
def test_the_file_in_the_project_is_up_to_date(name: str) -> None:
    hint = f"{name} is out of date: run `python -m ramd.config.reference --write`"
    assert (PROJECT / name).read_text(encoding="utf-8") == products()[name], hint


def test_the_sample_loads_and_warns_of_nothing() -> None:
    config = load_text(sample_conf(), {})
    assert config.warnings == ()
    assert config.given == {"node_id", "cluster_name", "postgresql_data_dir"}
    assert load_client_text(sample_client_conf()) == ClientConfig()


def uncommented(text: str) -> dict[str, str]:
    lines = "\n".join(
        line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")
    )
    found = parse(lines, "sample")
    assert found.faults == ()  # every key once, every line well-formed
    return {key: setting.value for key, setting in found.settings.items()}


def test_the_samples_hold_every_key_once() -> None:
    assert {key for key in uncommented(sample_conf()) if key in KEYS} == set(KEYS)
    assert set(uncommented(sample_client_conf())) == set(CLIENT_KEYS)


def test_a_default_shown_in_the_sample_is_the_default() -> None:
    plain = load_text("postgresql_data_dir = /var/lib/ramd/data\n", {})
    shown = {
        key: value
        for key, value in uncommented(sample_conf()).items()
        if key in KEYS and value and not value.startswith(("/", "--")) and key != "auth_method"
    }
    text = "".join(f"{key} = {value}\n" for key, value in shown.items())
    config = load_text("postgresql_data_dir = /var/lib/ramd/data\n" + text, {})
    assert config.warnings == ()
    assert config.model_copy(update={"given": plain.given}) == plain


def test_the_reference_has_every_key_alias_and_variable() -> None:
    page = reference_page()
    names = [*KEYS, *(f"node_N_{name}" for name in NODE_FIELDS), *ALIASES, *ENVIRONMENT_KEYS]
    for name in (*names, *CLIENT_KEYS):
        assert f"| `{name}` |" in page, name
    assert page.count("\n# ") + page.startswith("# ") == 1  # one first-level heading


def test_check_fails_until_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1
    assert "docs/configuration.md: out of date" in capsys.readouterr().err
    assert main(["--write"]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "conf/ramd.conf").write_text("old")
    assert main(["--check"]) == 1
    assert main(["--bogus"]) == 2
