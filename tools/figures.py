"""Figures of the package that tell whether it stays easy to read: ``python tools/figures.py``.

Each line is a figure, its value, and the bound that the project keeps. The exit code is the number
of bounds that are not kept.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "daskstats"

# Names that tell one kind of scheduler from another.
SCHEDULERS = re.compile(
    r"threaded\.get\b|multiprocessing\.get\b|get_sync\b|get_async\b|\.client is (?:not )?None"
    r"|\.cluster is (?:not )?None|\.in_turn\b|\.sends\b|\.shares_memory\b"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Figure(NamedTuple):
    """One figure: its name, its value, and the bound; several numbers are bounded one by one."""

    name: str
    value: tuple[float, ...]
    bound: tuple[float, ...]

    @property
    def kept(self) -> bool:
        return all(a <= b for a, b in zip(self.value, self.bound, strict=True))

    def __str__(self) -> str:
        value, bound = (" / ".join(f"{x:g}" for x in each) for each in (self.value, self.bound))
        return f"{self.name:<58} {value:>16}   at most {bound}{'' if self.kept else '   MISSED'}"


def figures(package: Path = PACKAGE) -> list[Figure]:
    """Return all figures of a package."""
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    functions = [each for tree in trees.values() for each in functions_of(tree)]
    lengths = sorted(body_lines(function) for function in functions)
    counts = sorted(map(arguments, functions))
    files = sorted((text.count("\n") for text in texts.values()), reverse=True)
    words = [word for path, text in texts.items() for word in prose(text, trees[path])]
    lines = sum(code_lines(text, trees[path]) for path, text in texts.items())
    anys = sum(len(re.findall(r"\bAny\b", text)) for text in texts.values())
    asked = {path: len(SCHEDULERS.findall(text)) for path, text in texts.items()}
    return [
        Figure("function body, lines: median / p90 / max", spread(lengths), (6, 17, 45)),
        Figure("arguments of a function: p90 / max", spread(counts)[1:], (4, 8)),
        Figure("longest file / second longest, lines", tuple(files[:2]), (600, 450)),
        Figure(
            "tuned numeric constants", (sum(constants(tree) for tree in trees.values()),), (50,)
        ),
        Figure("Any per 1000 lines", (round(1000 * anys / sum(files), 1),), (10,)),
        Figure(
            "'what' / 'who', 'whose' per 10,000 words of prose",
            (rate(words, {"what"}), rate(words, {"who", "whose", "whom"})),
            (10, 3),
        ),
        Figure("files that ask for the kind of scheduler", (sum(map(bool, asked.values())),), (1,)),
        Figure("rooms that the series of `median` passes / returns", journey(), (6, 0)),
        Figure("lines of code without docstrings and comments", (lines,), (sys.maxsize,)),
    ]


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Return the lines of a function, its docstring and decorators left out."""
    first = function.body[0]
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def arguments(function: Function) -> int:
    """Return the number of arguments, ``self`` left out."""
    every = function.args
    names = [each.arg for each in (*every.posonlyargs, *every.args, *every.kwonlyargs)]
    several = (every.vararg is not None) + (every.kwarg is not None)
    return len([name for name in names if name not in ("self", "cls")]) + several


def spread(values: list[int]) -> tuple[int, int, int]:
    """Return the median, the 90th percentile, and the maximum of sorted values."""
    at = [values[ceil(part * len(values)) - 1] for part in (0.5, 0.9)]
    return at[0], at[1], values[-1]


def constants(tree: ast.Module) -> int:
    """Return how many names in capitals are given numbers at the top of a module."""
    count = 0
    for node in tree.body:
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            pairs: Iterable[tuple[ast.expr, ast.expr]] = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
            count += sum(
                isinstance(name, ast.Name) and name.id.isupper() and is_number(value)
                for name, value in pairs
            )
    return count


def is_number(value: ast.expr) -> bool:
    """Whether an expression is made of numbers only."""
    allowed = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Tuple, ast.Load)
    nodes = list(ast.walk(value))
    numbers = [n.value for n in nodes if isinstance(n, ast.Constant)]
    return (
        all(isinstance(n, allowed) for n in nodes)
        and bool(numbers)
        and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    )


def docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """Yield every string that is a statement: docstrings of functions, and of fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # noqa: SIM102
            if isinstance(node.value.value, str):
                yield node


def comments(text: str) -> Iterator[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return (token for token in tokens if token.type == tokenize.COMMENT)


def prose(text: str, tree: ast.AST) -> list[str]:
    """Return the words of docstrings and comments, without examples."""
    found = [node.value.value for node in docstrings(tree)]
    found = [re.sub(r"^\s*(>>>|\.\.\.).*$", "", each, flags=re.M) for each in found]
    found += [token.string for token in comments(text)]
    return [word.lower() for each in found for word in re.findall(r"[A-Za-z]+", each)]


def rate(words: list[str], wanted: set[str]) -> float:
    return round(1e4 * sum(word in wanted for word in words) / len(words), 1)


def code_lines(text: str, tree: ast.AST) -> int:
    """Return the lines that have code."""
    lines = set(range(1, text.count("\n") + 1))
    for node in docstrings(tree):
        lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    rows = text.splitlines()
    return sum(bool(rows[n - 1].strip()) and not rows[n - 1].strip().startswith("#") for n in lines)


def journey() -> tuple[int, int]:
    """Return the rooms that the series of `median` passes, and its returns to one of them.

    That is what the caller has given, and the series that it becomes.
    """
    import numpy as np

    import daskstats as stats

    given = list(np.arange(60, dtype="u2").reshape(10, 2, 3))
    passed: list[str] = []
    inside = str(PACKAGE) + "/"

    def note(frame, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(inside):
            count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
            names = frame.f_code.co_varnames[:count]
            values = [frame.f_locals.get(name) for name in names]
            if any(value is given or hasattr(value, "frame_unit") for value in values):
                room = path.removeprefix(inside).split("/")[0].removesuffix(".py")
                if not passed or passed[-1] != room:
                    passed.append(room)

    profile: Callable = sys.setprofile
    profile(note)
    try:
        stats.median(given)
    finally:
        profile(None)
    return len(set(passed)), len(passed) - len(set(passed))


def main() -> int:
    """Print the figures."""
    every = figures()
    for figure in every:
        print(figure)
    return sum(not figure.kept for figure in every)


if __name__ == "__main__":
    sys.exit(main())
