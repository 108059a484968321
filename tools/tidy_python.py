"""The rules of tidy about Python: budgets, late attributes, sleeps, broad excepts, pure rooms.

Each rule is a function from a `Source` to its findings, listed in `PYTHON_RULES`. Words and
documents are in tools/tidy.py, which is also the program; start there.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PURE_ROOMS = ("src/pgraft/core/", "src/ramd/domain/", "src/ramd/state/", "src/ramd/policy/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Above `soft` is a finding, above `hard` one that no exemption covers."""

    soft: int
    hard: int


FUNCTION_LINES = Budget(soft=50, hard=70)
MODULE_LINES = Budget(soft=400, hard=600)
PUBLIC_METHODS = Budget(soft=12, hard=18)
INSTANCE_ATTRIBUTES = Budget(soft=8, hard=12)
POSITIONAL_PARAMETERS = Budget(soft=5, hard=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule. `where` is the path, then `:name` if the rule is about a named thing."""

    rule: str
    where: str
    line: int
    text: str
    exemptible: bool = True

    def __str__(self) -> str:
        """One line an editor can jump to."""
        path = self.where.partition(":")[0]
        return f"{path}:{self.line}: {self.rule}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Python file, parsed."""

    path: str
    text: str
    tree: ast.Module
    lines: list[str] = field(default_factory=list)

    def in_dirs(self, *dirs: str) -> bool:
        """Whether the file lies in one of the folders, each named with its final slash."""
        return self.path.startswith(dirs)

    def finding(self, rule: str, node: ast.AST, text: str, name: str = "") -> Finding:
        """A finding at a node; `name` makes it one that can be exempted by itself."""
        where = f"{self.path}:{name}" if name else self.path
        return Finding(rule=rule, where=where, line=getattr(node, "lineno", 1), text=text)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def over(budget: Budget, count: int, finding: Finding, what: str) -> Iterator[Finding]:
    """The finding, if `count` is above the budget, with the figures in its text."""
    if count > budget.soft:
        text = f"{finding.text} has {count} {what}: budget {budget.soft}, at most {budget.hard}"
        yield Finding(
            rule=finding.rule,
            where=finding.where,
            line=finding.line,
            text=text,
            exemptible=count <= budget.hard,
        )


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function, bool]]:
    """Every function with its dotted name and whether it is a method."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node, isinstance(tree, ast.ClassDef)
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def classes(source: Source) -> Iterator[ast.ClassDef]:
    """Every class of a file."""
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`, of `c`, of `c(...)` and of `c[...]`; else empty."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.AST) -> str:
    """`a.b.c` as it was written; empty for anything but names joined by dots."""
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return node.id if isinstance(node, ast.Name) else ""


def function_lines(source: Source) -> Iterator[Finding]:
    """A function is measured from `def` to its last line; its docstring is not counted."""
    for name, node, _ in functions(source.tree):
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            count -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        yield from over(
            FUNCTION_LINES, count, source.finding("function-lines", node, name, name), "lines"
        )


def module_lines(source: Source) -> Iterator[Finding]:
    """A module is measured in lines of text, all of them."""
    finding = source.finding("module-lines", source.tree, "the module")
    yield from over(MODULE_LINES, len(source.lines), finding, "lines")


def positional_parameters(source: Source) -> Iterator[Finding]:
    """Not in tests: a test asks for its fixtures by position."""
    if source.in_dirs("tests/"):
        return
    for name, node, is_method in functions(source.tree):
        parameters = [*node.args.posonlyargs, *node.args.args]
        static = any(last_name(d) == "staticmethod" for d in node.decorator_list)
        count = len(parameters) - (is_method and not static)
        finding = source.finding("positional-parameters", node, name, name)
        yield from over(POSITIONAL_PARAMETERS, count, finding, "positional parameters")


def public_methods(source: Source) -> Iterator[Finding]:
    """Different public names; a property and its setter are one. Not in tests."""
    if source.in_dirs("tests/"):
        return
    for node in classes(source):
        names = {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        count = sum(not name.startswith("_") for name in names)
        finding = source.finding("public-methods", node, node.name, node.name)
        yield from over(PUBLIC_METHODS, count, finding, "public methods")


VALUE_BASES = frozenset(
    {
        "BaseModel",
        "Struct",
        "TypedDict",
        "NamedTuple",
        "Protocol",
        "Enum",
        "IntEnum",
        "StrEnum",
        "Flag",
        "IntFlag",
    }
)


def assigned(function: Function) -> Iterator[ast.Attribute]:
    """Every `self.x` that the function stores to."""
    parameters = [*function.args.posonlyargs, *function.args.args]
    own = parameters[0].arg if parameters else ""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and dotted(node.value) == own
        ):
            yield node


def declared(node: ast.ClassDef, by_name: dict[str, ast.ClassDef], depth_max: int = 8) -> set[str]:
    """What a class has after its `__init__`: declared in its body, set there, or inherited."""
    names: set[str] = set()
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            names.add(last_name(item.target))
        elif isinstance(item, ast.Assign):
            names.update(last_name(target) for target in item.targets)
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(item.name)  # a property with a setter
            if item.name in ("__init__", "__post_init__"):
                names.update(a.attr for a in assigned(item))
    bases = [by_name[last_name(b)] for b in node.bases if last_name(b) in by_name]
    for base in bases if depth_max else []:
        names |= declared(base, by_name, depth_max - 1)
    return names


def is_value(node: ast.ClassDef, stored: bool) -> bool:
    """Whether many fields are no fault: a frozen dataclass, or a model that only declares them."""
    if any(last_name(base) in VALUE_BASES for base in node.bases):
        return True
    keywords = [k for d in node.decorator_list if isinstance(d, ast.Call) for k in d.keywords]
    frozen = any(k.arg == "frozen" and getattr(k.value, "value", None) is True for k in keywords)
    return frozen or bool(node.bases and not node.decorator_list and not stored)


def instance_attributes(source: Source) -> Iterator[Finding]:
    """Not too many attributes, and none that an object gets only later in its life."""
    by_name = {node.name: node for node in classes(source)}
    for node in by_name.values():
        known = declared(node, by_name)
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        stored = [(m, a) for m in methods for a in assigned(m)]
        for method, attribute in stored:
            if attribute.attr not in known:
                name = f"{node.name}.{attribute.attr}"
                text = f"{name} is created in {method.name}, not in __init__"
                yield source.finding("late-attribute", attribute, text, name)
        if source.in_dirs("tests/") or is_value(node, bool(stored)):
            continue
        annotated = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        fields = {last_name(n.target) for n in annotated if last_name(n.annotation) != "ClassVar"}
        count = len(fields | {a.attr for _, a in stored})
        finding = source.finding("instance-attributes", node, node.name, node.name)
        yield from over(INSTANCE_ATTRIBUTES, count, finding, "attributes")


SLEEPS = frozenset({"time.sleep", "asyncio.sleep", "sleep", "anyio.sleep"})


def sleeps_in_tests(source: Source) -> Iterator[Finding]:
    """A test waits for a condition (tests/support/wait.py); `asyncio.sleep(0)` only yields."""
    if not source.in_dirs("tests/") or source.in_dirs("tests/support/"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in SLEEPS:
            zero = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if not zero:
                yield source.finding(
                    "sleep-in-test", node, "wait for a condition instead: tests.support.wait"
                )


BROAD = frozenset({"", "Exception", "BaseException", "CancelledError"})


def caught(node: ast.expr | None) -> set[str]:
    """What an `except` or a `suppress` names; the empty name for a bare `except`."""
    if node is None:
        return {""}
    named = node.elts if isinstance(node, ast.Tuple) else [node]
    # The other CancelledError, of a future in a thread, is an ordinary exception.
    return {last_name(n) for n in named if "futures" not in dotted(n)}


def broad_excepts(source: Source) -> Iterator[Finding]:
    """In src: who catches everything, or a cancellation, raises it again or says why not."""
    if not source.in_dirs("src/"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            names = set() if isinstance(last, ast.Raise) and last.exc is None else caught(node.type)
        elif isinstance(node, ast.Call) and last_name(node) == "suppress":
            names = {name for argument in node.args for name in caught(argument)} - {""}
        else:
            continue
        near = source.lines[max(0, node.lineno - 2) : node.lineno + 1]
        if names & BROAD and not any("# boundary:" in line for line in near):
            text = "raise it again, name what is expected, or say `# boundary: <why here>`"
            yield source.finding("broad-except", node, text)


def impure_calls(source: Source) -> Iterator[Finding]:
    """The pure rooms are handed chance and time: of `random` only the type, of dates no `now`."""
    if not source.in_dirs(*PURE_ROOMS):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            names = {alias.name for alias in node.names} - {"Random"}
        elif isinstance(node, ast.Attribute) and dotted(node.value) == "random":
            names = {node.attr} - {"Random"}
        elif isinstance(node, ast.Call) and last_name(node) in ("now", "utcnow", "today"):
            names = {dotted(node.func)} if isinstance(node.func, ast.Attribute) else set()
        else:
            continue
        if names:
            yield source.finding("impure", node, f"{', '.join(sorted(names))} in a pure room")


PYTHON_RULES: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    function_lines,
    module_lines,
    positional_parameters,
    public_methods,
    instance_attributes,
    sleeps_in_tests,
    broad_excepts,
    impure_calls,
)
