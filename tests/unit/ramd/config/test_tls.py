"""TLS files are tried out before they are relied on."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.config.faults import InvalidConfigError
from ramd.config.load import load_text
from ramd.config.model import Config
from ramd.config.tls import TlsFault, TlsPaths, examine
from tests.support.tls_files import Authority, in_days, tls_keys


def load(text: str) -> Config:
    return load_text("postgresql_data_dir = /srv/ramd-test/data\n" + text, {}, source="f")


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load(text)
    return [f"{fault.key}: {fault.wrong}" for fault in caught.value.faults]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def files(authority: Authority) -> TlsPaths:
    return authority.issue("node1")


def test_good_files_load_without_a_warning(files: TlsPaths) -> None:
    config = load(tls_keys(files))
    assert config.warnings == ()
    assert config.tls == files


def test_off_means_that_files_are_not_looked_at(files: TlsPaths) -> None:
    config = load(f"ssl_cert_file = {files.cert}\nssl_key_file = /nonexistent\n")
    assert config.tls is None


def test_the_end_of_the_validity_is_known(authority: Authority) -> None:
    found = examine(authority.issue("short", not_after=in_days(30)))
    assert abs(found.until_unix_s - time.time() - 30 * 86_400) < 3_600
    assert found.until.endswith("UTC")


def test_a_certificate_that_expires_soon_is_warned_of(authority: Authority) -> None:
    soon = authority.issue("soon", not_after=in_days(3))
    (warning,) = load(tls_keys(soon)).warnings
    assert warning.startswith(f"ssl_cert_file: '{soon.cert}' expires on ")


def test_a_certificate_of_another_node_is_refused(authority: Authority) -> None:
    named = authority.issue("second", "node2", "localhost")
    assert examine(named).nodes == {2}
    (found,) = faults(tls_keys(named))
    assert "is good for node2 only, and this is node 1" in found
    assert load(tls_keys(named) + "node_id = 2\n").tls == named
    assert examine(authority.issue("any")).nodes == frozenset()


def test_switched_on_it_needs_its_files() -> None:
    assert faults("ssl_enabled = true\n") == [
        "ssl_enabled: needs ssl_cert_file",
        "ssl_enabled: needs ssl_key_file",
    ]


def test_every_fault_names_the_key_that_is_wrong(authority: Authority, files: TlsPaths) -> None:
    other = Authority(files.ca.parent / "other")
    cases = {
        "does not belong to the certificate": replace(files, key=authority.issue("x").key),
        "unable to get local issuer certificate": replace(files, ca=other.file),
        "certificate has expired": authority.issue("old", not_after=in_days(-1)),
        "holds no certificate": replace(files, ca=files.key),
        "cannot be used": replace(files, cert=files.key),
        "cannot be read (No such file or directory)": replace(files, cert=Path("/nonexistent")),
    }
    for wrong, paths in cases.items():
        (found,) = faults(tls_keys(paths))
        assert wrong in found
        field = found.split(":")[0]
        named = {"ssl_cert_file": paths.cert, "ssl_key_file": paths.key, "ssl_ca_file": paths.ca}
        assert str(named[field]) in found


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_that_others_can_read_is_refused(
    files: TlsPaths, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.key.chmod(mode)
    real = files.key.stat()
    monkeypatch.setattr("ramd.config.tls.os.geteuid", lambda: real.st_uid)
    if real.st_uid == 0 and mode == 0o640:
        examine(files)  # root's own and a group's: what packages of certificates make
        return
    with pytest.raises(TlsFault, match=rf"can be read by others \(mode {mode:04o}\)"):
        examine(files)


def test_a_key_with_a_password_is_refused_not_asked_for(files: TlsPaths) -> None:
    locked = files.key.with_name("locked.key")
    make = ["openssl", "genrsa", "-aes256", "-passout", "pass:secret", "-out", str(locked), "2048"]
    subprocess.run(make, check=True, capture_output=True)
    locked.chmod(0o600)
    with pytest.raises(TlsFault, match="is encrypted"):
        examine(replace(files, key=locked))


def test_a_self_signed_certificate_is_its_own_authority(tmp_path: Path) -> None:
    cert, key = tmp_path / "ramd.crt", tmp_path / "ramd.key"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "100"]
    make += ["-subj", "/CN=ramd", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(make, check=True, capture_output=True)
    key.chmod(0o600)
    config = load(f"ssl_enabled = on\nssl_cert_file = {cert}\nssl_key_file = {key}\n")
    assert config.tls == TlsPaths(cert=cert, key=key, ca=cert)
