"""Rules that look at the host: files with secrets, programs, directories, users."""

import getpass
import os
from pathlib import Path

import pytest

from ramd.config.faults import InvalidConfigError
from ramd.config.host import PROGRAMS
from ramd.config.load import load_text
from ramd.config.secret_file import SecretFileError, read_secret

SECRET = "0123456789abcdef0123456789abcdef"
THREE = "".join(f"node_{n}_hostname = db{n}\n" for n in (1, 2, 3))


def load(tmp_path: Path, text: str) -> None:
    load_text(f"postgresql_data_dir = {tmp_path}/data\n{text}", {}, source="f")


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        load(tmp_path, text)
    assert len(caught.value.faults) == 1, caught.value.message
    return str(caught.value.faults[0])


def secret_file(tmp_path: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_three_hosts_with_a_private_secret_load(tmp_path: Path) -> None:
    load(tmp_path, f"{THREE}cluster_secret_file = {secret_file(tmp_path)}")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o610])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    file = secret_file(tmp_path, mode=mode)
    found = fault(tmp_path, f"{THREE}cluster_secret_file = {file}")
    assert found.startswith("f:5: cluster_secret_file: ")
    assert f"mode {mode:04o}" in found
    assert "chmod 600" in found


@pytest.mark.parametrize("text", ["", "\n", "short", "two words here now", SECRET + "\nmore"])
def test_a_secret_is_one_long_line(tmp_path: Path, text: str) -> None:
    found = fault(tmp_path, f"{THREE}cluster_secret_file = {secret_file(tmp_path, text)}")
    assert found.startswith("f:5: cluster_secret_file: ")
    assert "words" not in found  # the content is not repeated


def test_a_secret_must_be_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in fault(tmp_path, f"{THREE}cluster_secret_file = {tmp_path}/absent")
    assert "not a regular file" in fault(tmp_path, f"{THREE}cluster_secret_file = {tmp_path}")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SecretFileError, match="not a regular file"):
        read_secret(fifo, what="secret", least=1)


def test_a_token_comes_from_its_file(tmp_path: Path) -> None:
    file = secret_file(tmp_path, "my-token-123\n")
    text = f"postgresql_data_dir = /x/data\nhttp_auth_enabled = true\nhttp_auth_token_file = {file}"
    assert load_text(text, {}).http_auth_token == "my-token-123"
    file.chmod(0o644)
    assert "http_auth_token_file" in fault(tmp_path, f"http_auth_token_file = {file}")


def test_token_and_token_file_exclude_each_other(tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    found = fault(tmp_path, f"http_auth_token = long-enough\nhttp_auth_token_file = {file}")
    assert found.startswith("f:3: http_auth_token_file: http_auth_token is set as well")


def test_the_directory_of_programs_must_hold_them(tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    assert "is absent" in fault(tmp_path, f"postgresql_bin_dir = {directory}")
    directory.mkdir()
    assert "does not hold postgres, initdb" in fault(tmp_path, f"postgresql_bin_dir = {directory}")
    for name in PROGRAMS:
        (directory / name).touch(mode=0o755)
    load(tmp_path, f"postgresql_bin_dir = {directory}")
    (directory / "initdb").chmod(0o644)
    assert "does not hold initdb;" in fault(tmp_path, f"postgresql_bin_dir = {directory}")


@pytest.mark.parametrize("key", ["state_dir", "postgresql_log_dir", "working_directory"])
def test_a_file_is_no_directory(tmp_path: Path, key: str) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"{key}: '{file}' is a file" in fault(tmp_path, f"{key} = {file}")


@pytest.mark.parametrize("key", ["log_file", "pid_file"])
def test_files_need_their_directory(tmp_path: Path, key: str) -> None:
    assert "is absent; make it" in fault(tmp_path, f"{key} = {tmp_path}/absent/x")
    assert "is a directory" in fault(tmp_path, f"{key} = {tmp_path}")
    load(tmp_path, f"{key} = {tmp_path}/x")
    assert list(tmp_path.iterdir()) == []  # looked at, nothing made


def test_a_link_does_not_hide_a_place_inside_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    assert "state_dir" in fault(tmp_path, f"state_dir = {tmp_path}/link/state")


def test_users_and_groups_must_exist(tmp_path: Path) -> None:
    assert "no user 'nobody-of-that-name'" in fault(tmp_path, "daemon_user = nobody-of-that-name")
    assert "no group 'nobody-of-that-name'" in fault(tmp_path, "daemon_group = nobody-of-that-name")
    assert "does not run as root" in fault(tmp_path, "daemon_user = root")
    if os.geteuid() == 0:
        load(tmp_path, "daemon_user = nobody")
    else:
        load(tmp_path, f"daemon_user = {getpass.getuser()}")
        other = "nobody" if getpass.getuser() != "nobody" else "daemon"
        assert "only root can run" in fault(tmp_path, f"daemon_user = {other}")


def test_a_join_token_is_needed_until_the_node_has_state(tmp_path: Path) -> None:
    text = f"join = localhost:7400\ncluster_secret_file = {secret_file(tmp_path)}\n"
    text += f"join_token_file = {tmp_path}/token\n"
    assert "f:4: join_token_file: " in fault(tmp_path, text)
    (tmp_path / "token").write_text("ramd1." + "x" * 40 + "\n")
    (tmp_path / "token").chmod(0o644)
    assert "can be read by others" in fault(tmp_path, text)
    (tmp_path / "token").chmod(0o600)
    load(tmp_path, text)
    (tmp_path / "token").unlink()
    (tmp_path / "data.ramd" / "raft").mkdir(parents=True)
    (tmp_path / "data.ramd" / "raft" / "identity.json").write_text("{}")
    load(tmp_path, text)


def test_where_to_join_is_a_list_of_addresses(tmp_path: Path) -> None:
    text = f"postgresql_data_dir = {tmp_path}/data\ncluster_secret_file = {secret_file(tmp_path)}\n"
    token = tmp_path / "token"
    token.write_text("ramd1." + "x" * 40 + "\n")
    token.chmod(0o600)
    text += f"join_token_file = {token}\n"
    several = load_text(f"{text}hostname = db4\njoin = db1:7400, [::2]:7401 db3:07402\n", {})
    assert several.join == ("db1:7400", "[::2]:7401", "db3:7402")
    assert not several.one_host
    assert load_text(f"{text}join = localhost:7400\n", {}).one_host
