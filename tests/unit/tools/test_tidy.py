"""tools.tidy finds what it promises to find, lets the rest pass, and its exemptions shrink."""

from pathlib import Path

import pytest

from tools import tidy
from tools.tidy_python import FUNCTION_LINES, MODULE_LINES


def rules(path: str, text: str) -> list[str]:
    return [finding.rule for finding in tidy.check_file(path, text)]


def function(lines: int, docstring: str = "") -> str:
    body = ["    x = 0"] * (lines - 1)
    return "\n".join(["def f():", *([f'    """{docstring}"""'] if docstring else []), *body, ""])


def test_function_lines_are_counted_without_the_docstring() -> None:
    assert rules("src/ramd/a.py", function(FUNCTION_LINES.soft, "One.\n\n    Two.\n    ")) == []
    assert rules("src/ramd/a.py", function(FUNCTION_LINES.soft + 1)) == ["function-lines"]


def test_methods_and_inner_functions_are_functions() -> None:
    inner = "\n".join("        " + line for line in function(60).splitlines())
    method = f"class A:\n    async def g(self):\n{inner}\n        return f\n"
    assert rules("src/ramd/a.py", method) == ["function-lines", "function-lines"]


def test_module_lines() -> None:
    assert rules("src/ramd/a.py", "X = 1\n" * MODULE_LINES.soft) == []
    assert rules("src/ramd/a.py", "X = 1\n" * (MODULE_LINES.soft + 1)) == ["module-lines"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(a, b, c, d, e): pass\n", False),
        ("def f(a, b, c, d, e, f): pass\n", True),
        ("def f(a, b, c, d, e, *, f, g): pass\n", False),
        ("class A:\n    def f(self, a, b, c, d, e): pass\n", False),
        ("class A:\n    @staticmethod\n    def f(a, b, c, d, e, f): pass\n", True),
    ],
)
def test_positional_parameters(text: str, found: bool) -> None:
    assert rules("src/ramd/a.py", text) == ["positional-parameters"] * found
    assert rules("tests/unit/test_a.py", text) == []


def test_public_methods_count_names_not_accessors() -> None:
    twelve = "class A:\n" + "".join(f"    def m{n}(self): pass\n" for n in range(12))
    accessor = "    @m0.setter\n    def m0(self, value): pass\n    def _own(self): pass\n"
    assert rules("src/ramd/a.py", twelve + accessor) == []
    assert rules("src/ramd/a.py", twelve + "    def m12(self): pass\n") == ["public-methods"]


def many_fields(header: str) -> str:
    return header + "".join(f"    f{n}: int\n" for n in range(9))


def test_instance_attributes_of_values_do_not_count() -> None:
    assert rules("src/a.py", many_fields("class A:\n")) == ["instance-attributes"]
    assert rules("src/a.py", many_fields("@dataclass\nclass A:\n")) == ["instance-attributes"]
    assert rules("src/a.py", many_fields("@dataclass(frozen=True)\nclass A:\n")) == []
    assert rules("src/a.py", many_fields("class A(pydantic.BaseModel):\n")) == []
    model = many_fields("class A(Topic):\n")
    store = "    def f(self):\n        self.f0 = 1\n"
    assert rules("src/a.py", model) == []
    assert rules("src/a.py", model + store) == ["instance-attributes"]


def test_an_attribute_created_after_init_is_found_once_and_by_name() -> None:
    text = (
        "class Base:\n    def __init__(self):\n        self.a = 1\n"
        "class B(Base):\n    c: int = 0\n"
        "    def go(self):\n        self.a = 2\n        self.c += 1\n        self.late = 3\n"
    )
    found = list(tidy.check_file("src/ramd/a.py", text))
    assert [(f.rule, f.where, f.line) for f in found] == [
        ("late-attribute", "src/ramd/a.py:B.late", 9)
    ]


@pytest.mark.parametrize("call", ["time.sleep(1)", "asyncio.sleep(0.1)", "sleep(delay)"])
def test_sleeps_belong_to_test_support(call: str) -> None:
    assert rules("tests/unit/test_a.py", f"{call}\n") == ["sleep-in-test"]
    assert rules("tests/support/wait.py", f"{call}\n") == []
    assert rules("src/ramd/a.py", f"{call}\n") == []


def test_a_test_may_yield_to_the_loop() -> None:
    assert rules("tests/unit/test_a.py", "asyncio.sleep(0)\n") == []


@pytest.mark.parametrize(
    ("clause", "found"),
    [
        ("except Exception:\n    log()", True),
        ("except:\n    log()", True),
        ("except (OSError, asyncio.CancelledError):\n    log()", True),
        ("except Exception as error:\n    raise Refused() from error", True),
        ("except BaseException:\n    clean()\n    raise", False),
        ("except OSError:\n    log()", False),
        ("except concurrent.futures.CancelledError:\n    log()", False),
        (
            "except Exception:  # boundary: one bad request must not end the server\n    log()",
            False,
        ),
        ("# boundary: the last resort\nexcept Exception:\n    log()", False),
    ],
)
def test_broad_excepts(clause: str, found: bool) -> None:
    text = f"try:\n    go()\n{clause}\n"
    assert rules("src/ramd/a.py", text) == ["broad-except"] * found
    assert rules("tools/a.py", text) == []


def test_suppressing_everything_is_a_broad_except() -> None:
    assert rules("src/ramd/a.py", "with suppress(Exception):\n    go()\n") == ["broad-except"]
    assert rules("src/ramd/a.py", "with suppress(OSError):\n    go()\n") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from random import Random\n", False),
        ("import random\ndef f(r: random.Random): return r.random()\n", False),
        ("from random import shuffle\n", True),
        ("import random\nrandom.random()\n", True),
        ("datetime.now()\n", True),
        ("def f(now): return now\n", False),
    ],
)
def test_pure_rooms_are_handed_chance_and_time(text: str, found: bool) -> None:
    assert rules("src/pgraft/core/a.py", text) == ["impure"] * found
    assert rules("src/pgraft/net/a.py", text) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("the master", True),
        ("MASTER_PORT = 1", True),
        ("two slaves", True),
        ("class MasterNode", True),
        ("a whitelist", True),
        ("the postmaster and postmaster.pid", False),
        ("mastery", False),
    ],
)
def test_banned_words(line: str, found: bool) -> None:
    assert rules("docs/a.txt", line) == ["banned-word"] * found


def test_leader_is_a_word_of_raft_only() -> None:
    assert rules("src/ramd/a.sql", "-- is_leader") == ["banned-word"]
    assert rules("src/ramd/a.sql", "-- the Raft leader") == []
    assert rules("src/pgraft/a.sql", "-- is_leader") == []


@pytest.mark.parametrize("host", [".".join(parts) for parts in tidy.REGISTRIES])
def test_registry_hosts(host: str) -> None:
    assert rules("requirements/a.txt", f"--index-url https://{host}/simple") == ["registry-host"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("# TODO", True),
        ("# TODO: later", True),
        ("# FIXME: say what is missing", True),
        ("# TODO: say what is missing", False),
        ("mktemp /tmp/XXXXXX", False),
    ],
)
def test_todo_says_what_is_missing(line: str, found: bool) -> None:
    assert rules("tools/a.sh", line) == ["todo"] * found


def test_a_document_has_one_title() -> None:
    assert rules("a.md", "# One\n\n```\n# a comment\n```\n\n## Two\n") == []
    assert rules("a.md", "# One\n\n# Two\n") == ["one-title"]
    assert rules("a.md", "text\n") == ["one-title"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(function(60))
    return tmp_path


def exempt(tree: Path, where: str, reason: str = "generated") -> list[str]:
    entry = f'[[exempt]]\nrule = "function-lines"\nwhere = "{where}"\nreason = "{reason}"\n'
    (tree / tidy.EXEMPTIONS).write_text(entry)
    return [finding.rule for finding in tidy.check_tree(tree)]


def test_exempted_and_not_exempted(tree: Path) -> None:
    assert [finding.rule for finding in tidy.check_tree(tree)] == ["function-lines"]
    assert exempt(tree, "src/a.py:f") == []


def test_above_the_hard_limit_nothing_helps(tree: Path) -> None:
    (tree / "src" / "a.py").write_text(function(FUNCTION_LINES.hard + 1))
    assert exempt(tree, "src/a.py:f") == ["function-lines"]


def test_an_exemption_without_use_or_reason_is_a_finding(tree: Path) -> None:
    assert exempt(tree, "src/gone.py:f") == ["function-lines", "exemption"]
    assert exempt(tree, "src/a.py:f", reason="") == ["exemption"]


def test_the_program_prints_findings_and_fails(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / ".venv").mkdir()
    (tree / ".venv" / "b.py").write_text("the master")
    assert tidy.main([str(tree)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "src/a.py:1: function-lines: f has 60 lines: budget 50, at most 70",
        "tidy: 1 findings",
    ]
    (tree / "src" / "a.py").write_text("X = 1\n")
    assert tidy.main([str(tree)]) == 0
