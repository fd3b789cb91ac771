"""Figures of the source: how long its pieces are, how much they ask for, and who calls whom.

Nothing is imported or run; the source is parsed. ``--check`` exits with 1 where a limit is broken.

    python benchmarks/structure.py
    python benchmarks/structure.py --check --source /tmp/before/vemseg --files all
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common import show

SOURCE = Path(__file__).resolve().parents[1] / "vemseg"

PIPELINE_LINES = 2300
"""Most lines that all modules of ``pipeline/`` may have together, blank lines and docstrings included."""
BODY_LINES = 40
"""Most lines that the body of a function may have, without its docstring."""
BODY_LINES_P90 = 16
"""Nine of ten function bodies have at most this many lines."""
MODULE_LINES = 350
"""Most lines that a module may have, without docstrings."""
ANYS = 99
"""How often the whole package may use the name ``Any``, its imports not counted."""
PARAMETERS = 7
"""Most parameters that a function outside ``cli/`` may have, ``self`` and ``cls`` not counted."""
CYCLES = 0
"""How many modules may import themselves by way of others."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed module.

    Attributes
    ----------
    path : Path
        Relative to the package.
    text : str
    package : str
        Name of the package.
    """

    path: Path
    text: str
    package: str

    @cached_property
    def tree(self) -> ast.Module:
        """Return the syntax tree."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def functions(self) -> list[Function]:
        """Return all functions and methods, those inside others too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @property
    def name(self) -> str:
        """Return the dotted name."""
        parts = [self.package, *self.path.with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """Return the folder or module directly under the package that it belongs to."""
        return self.path.with_suffix("").parts[0]

    @property
    def lines(self) -> int:
        """Count lines as ``wc -l`` does."""
        return self.text.count("\n")

    @property
    def code_lines(self) -> int:
        """Count lines from the first to the last statement, without docstrings."""
        if not self.tree.body:
            return 0
        documented = [node for node in ast.walk(self.tree) if isinstance(node, Function | ast.ClassDef)]
        strings = (_docstring(node) for node in [self.tree, *documented])
        return self.tree.body[-1].end_lineno - sum(_length([found]) for found in strings if found)

    @cached_property
    def bodies(self) -> list[int]:
        """Return the lines of each function's body, without its docstring."""
        return [_length(node.body[_docstring(node) is not None :]) for node in self.functions]

    @property
    def anys(self) -> int:
        """Count the uses of the name ``Any``."""
        return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(self.tree))

    @cached_property
    def wide(self) -> list[tuple[str, int]]:
        """Return the functions with too many parameters, and how many those are."""
        counted = [(node.name, _parameters(node.args)) for node in self.functions]
        return [(name, count) for name, count in counted if count > PARAMETERS]

    @cached_property
    def used_once(self) -> list[str]:
        """Return the private functions that this module mentions once beside their definition."""
        used = Counter(name for node in ast.walk(self.tree) for name in _mentioned(node))
        private = (node.name for node in self.functions if node.name[0] == "_" and node.name[:2] != "__")
        return [name for name in private if used[name] == 1]

    @cached_property
    def imported(self) -> list[tuple[str, str]]:
        """Return what is imported from the package: the name it gets here, and its dotted name."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                found += [(one.asname or one.name, f"{node.module}.{one.name}") for one in node.names]
            elif isinstance(node, ast.Import):
                found += [(one.asname or one.name.split(".")[0], one.name) for one in node.names]
        return [(name, dotted) for name, dotted in found if dotted.split(".")[0] == self.package]

    @property
    def calls_out(self) -> int:
        """Count the calls of what is imported from other rooms of the package."""
        foreign = {name for name, dotted in self.imported if _room(dotted) != self.room}
        calls = (node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return sum(_root(function) in foreign for function in calls)

    @property
    def rooms(self) -> list[str]:
        """Return the other rooms that are imported from."""
        return sorted({_room(dotted) for _, dotted in self.imported} - {self.room, "", "__version__"})


def main() -> None:
    """Print the figures; with ``--check`` exit with 1 where a limit is broken."""
    options = _options()
    modules = read(options.source)
    figures = [*measure(modules)]
    show(
        f"{options.source}: {len(modules)} modules, {sum(module.lines for module in modules)} lines",
        ["figure", "now", "limit", ""],
        [[name, now, limit if limit is not None else "-", word] for name, now, limit, word in figures],
    )
    _show_details(modules)
    _show_files(module for module in modules if options.files == "all" or module.room == "pipeline")
    broken = [name for name, _, _, word in figures if word == "BROKEN"]
    if options.check and broken:
        sys.exit(f"\nlimits broken: {', '.join(broken)}")


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--source", type=Path, default=SOURCE, help="folder of the package")
    made.add_argument("--files", choices=["pipeline", "all"], default="pipeline", help="which files to list")
    made.add_argument("--check", action="store_true", help="exit with 1 where a limit is broken")
    return made.parse_args()


def read(source: Path) -> list[Module]:
    """Read the modules of a package, given its folder."""
    paths = sorted(source.rglob("*.py"))
    return [Module(path.relative_to(source), path.read_text(encoding="utf-8"), source.name) for path in paths]


def measure(modules: Sequence[Module]) -> Iterator[tuple[str, int, int | None, str]]:
    """Yield every figure: its name, its value, its limit if it has one, and whether the limit holds."""
    pipeline = [module for module in modules if module.room == "pipeline"]
    bodies = sorted(lines for module in modules for lines in module.bodies)
    wide = sum(len(module.wide) for module in modules if module.room != "cli")
    for name, now, limit in (
        ("lines of pipeline/", sum(module.lines for module in pipeline), PIPELINE_LINES),
        ("modules of pipeline/", len(pipeline), None),
        ("functions", len(bodies), None),
        ("lines of a body, median", _quantile(bodies, 0.5), None),
        ("lines of a body, 90th percentile", _quantile(bodies, 0.9), BODY_LINES_P90),
        ("lines of a body, most", bodies[-1], BODY_LINES),
        ("lines of a module without docstrings, most", max(m.code_lines for m in modules), MODULE_LINES),
        ("modules longer than that", sum(m.code_lines > MODULE_LINES for m in modules), 0),
        (
            f"modules of more than {MODULE_LINES} lines in all",
            sum(m.lines > MODULE_LINES for m in modules),
            None,
        ),
        ("uses of Any", sum(module.anys for module in modules), ANYS),
        (f"functions outside cli/ with more than {PARAMETERS} parameters", wide, 0),
        ("private functions used once", sum(len(module.used_once) for module in modules), None),
        ("private functions used once, in pipeline/", sum(len(m.used_once) for m in pipeline), None),
        ("modules in an import cycle", len({*cycle(modules)}), CYCLES),
    ):
        yield name, now, limit, "" if limit is None else "holds" if now <= limit else "BROKEN"


def cycle(modules: Sequence[Module]) -> list[str]:
    """Return the modules of the first import cycle found, or none."""
    known = {module.name for module in modules}
    graph = {
        module.name: {name for _, dotted in module.imported if (name := _owner(dotted, known))}
        for module in modules
    }
    try:
        graphlib.TopologicalSorter({name: needs - {name} for name, needs in graph.items()}).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def _owner(dotted: str, known: set[str]) -> str:
    """Return the module that a dotted name is or lies in; the package itself counts as none."""
    name = dotted if dotted in known else dotted.rpartition(".")[0]
    return name if name in known and "." in name else ""


def _show_details(modules: Sequence[Module]) -> None:
    """Print what is behind the figures that have a limit."""
    wide = [
        [f"{module.path}: {name}", count]
        for module in modules
        if module.room != "cli"
        for name, count in module.wide
    ]
    if wide:
        show(f"functions with more than {PARAMETERS} parameters", ["function", "parameters"], wide)
    if found := cycle(modules):
        print(f"\nimport cycle: {' -> '.join(found)}")


def _show_files(modules: Iterator[Module]) -> None:
    rows = [
        [
            module.path,
            module.lines,
            len(module.functions),
            max(module.bodies, default=0),
            len(module.used_once),
            module.anys,
            module.calls_out,
            " ".join(module.rooms),
        ]
        for module in modules
    ]
    header = [
        "file",
        "lines",
        "functions",
        "longest",
        "used once",
        "Any",
        "calls out",
        "rooms it imports from",
    ]
    show("file by file", header, rows)


def _docstring(node: ast.AST) -> ast.stmt | None:
    """Return the statement that is the docstring of a module, class or function."""
    return node.body[0] if ast.get_docstring(node, clean=False) is not None else None


def _length(statements: Sequence[ast.stmt]) -> int:
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def _parameters(given: ast.arguments) -> int:
    several = [star for star in (given.vararg, given.kwarg) if star]
    names = [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs, *several]]
    return sum(name not in ("self", "cls") for name in names)


def _mentioned(node: ast.AST) -> Iterator[str]:
    """Yield the name that a node reads."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.attr


def _root(function: ast.expr) -> str:
    """Return the first name of what is called: ``a`` of ``a.b(...)``."""
    while isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""


def _room(dotted: str) -> str:
    """Return the room that a dotted name of the package lies in."""
    return [*dotted.split("."), ""][1]


def _quantile(values: Sequence[int], share: float) -> int:
    """Return the smallest of some sorted values that at least this share of them does not exceed."""
    return values[math.ceil(share * len(values)) - 1]


if __name__ == "__main__":
    main()
