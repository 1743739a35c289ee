"""Figures that tell whether the package is easy to read: ``python tools/figures.py``.

Each line is a figure, its value, and the bound to reach. The exit code is the number of figures
beyond their bounds. `tests/test_figures.py` keeps the values from growing again.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "daskstats"

# Numbers that nobody could tune, with the reason: facts of a file format, of integers, of crystals.
# Each name is given a number once in the package, so that no other number is exempt with it.
FACTS = {
    "BARS": "of a histogram, for looking",
    "BLOSC_HEADER": "bytes of the header of the format",
    "BUDGET": "the part of the time that looking on may take, as promised",
    "CAPACITY": "frames, more than any series has",
    "CARD": "letters of a line of a FITS header, after its keyword",
    "CBF_HEADER": "bytes within which the header of the format ends",
    "CLOCK_TICK": "seconds by which the clock of a file system advances, and more",
    "COMMIT_BUDGET": "the part of the time that storing states may take, as promised",
    "CONTRAST": "of a picture, for looking",
    "DECADES": "of a logarithmic scale, for looking",
    "EXPECTED": "frames of a long scan, where nobody says how many",
    "FEW": "frames that loops add at once",
    "FIRST_PICTURE": "seconds before the first picture, as promised",
    "FRAMES_IN_32_BITS": "sums of that many 16-bit values fit",
    "FRAMES_IN_HALVES": "sums of that many 8-bit values fit in 16 bits",
    "GAP": "bytes of a number of a frame",
    "HEADER": "bytes of the largest header of Pilatus files",
    "HUGE": "bytes of a huge page of the system",
    "KEPT_GENERATIONS": "the newest, and the one before",
    "LINE": "bytes of a cache line",
    "LOCAL_HEADER": "bytes of the header of a member of a zip archive",
    "LOG_INTERVAL": "seconds between lines of a batch job, as promised",
    "LONGEST": "seconds between two pictures, as promised",
    "LOOKING": "the part of a core that waiting for frames may take, as promised",
    "MANIFEST_VERSION": "of the format",
    "MEBI": "a unit",
    "MOST_BITS": "bits of a byte, in which a tile holds a part of a key",
    "MOST_LISTED": "choices in a sentence",
    "MOST_MANIFEST": "bytes that are read of a file that may come from anywhere",
    "MOST_ON_HEAP": "bytes of the largest dynamic threshold of glibc",
    "MOST_OPEN": "a quarter of the lowest default limit of open files, that of macOS",
    "MOST_TEXT": "characters of a value in a sentence",
    "NETWORK": "the optimal sorting network of its size",
    "NOT_IN_TILE": "the largest value of the bits of a tile",
    "PAUSE": "seconds, a tenth of the lag that is promised",
    "PLACES": "bytes of three arrays",
    "READING": "copies that exist while frames are joined",
    "READ_STEPS": "as many as the images that are shown by default",
    "REFLECTIONS": "sums of squares of the indices that a face-centred cubic crystal reflects",
    "SAMPLE": "the inputs of the sorting network",
    "SAMPLED": "pixels that give limits of colours to a percent",
    "SATURATION": "the largest count of 20 bits",
    "SETTLED": "seconds after which a person can use an estimate",
    "SHORTEST_HEADER": "bytes of the header of an array in a file of numpy",
    "SHOWN_NBYTES": "of an array that an error shows",
    "SIGN_OF_LIFE": "seconds, as promised",
    "SILENCE": "seconds after which a machine counts as dead, as promised",
    "SHORTEST": "seconds between two pictures, as promised",
    "SIZE": "pixels of a picture, for looking",
    "SPE_HEADER": "bytes of the header of the format",
    "TICK": "seconds of delay that a person does not mind",
    "VERSION": "of the format",
}

# The functions that dask runs tasks with; to compare with one is to ask for the kind of scheduler.
GETS = ("threaded.get", "multiprocessing.get", "get_sync", "get_async")

# A tenth less than when the package was divided into rooms.
LINES = 10_440

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
    pages = [word for text in pages_of(package.parent) for word in prose_of_page(text)]
    lines = sum(code_lines(text, trees[path]) for path, text in texts.items())
    anys = sum(map(uses_of_any, trees.values()))
    asked = sum(asks_for_the_scheduler(tree) for tree in trees.values())
    return [
        Figure("function body, lines: median / p90 / max", spread(lengths), (6, 17, 45)),
        Figure("arguments of a function: p90 / max", spread(counts)[1:], (4, 8)),
        Figure("longest file / second longest, lines", tuple(files[:2]), (600, 450)),
        Figure("tuned numeric constants", (len(tuned(trees.values())),), (50,)),
        Figure("Any per 1000 lines", (round(1000 * anys / sum(files), 1),), (10,)),
        Figure(
            "'what' / 'who', 'whose' per 10,000 words of prose",
            (rate(words, {"what"}), rate(words, {"who", "whose", "whom"})),
            (10, 3),
        ),
        Figure(
            "'what' / 'who', 'whose' per 10,000 words of the pages",
            (rate(pages, {"what"}), rate(pages, {"who", "whose", "whom"})),
            (10, 3),
        ),
        Figure("files that ask for the kind of scheduler", (asked,), (1,)),
        Figure("rooms that the series of `median` passes / returns", journey(), (6, 0)),
        Figure("lines of code without docstrings and comments", (lines,), (LINES,)),
    ]


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Return the lines of a function with its signature, without docstring and decorators."""
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


def tuned(trees: Iterable[ast.Module]) -> list[str]:
    """Return the names in capitals that are given numbers at the top of modules, without facts.

    Numbers within functions, and those that are arguments, are not found.
    """
    return [name for tree in trees for name in constants(tree) if name not in FACTS]


def constants(tree: ast.Module) -> Iterator[str]:
    """Yield the names in capitals that are given numbers at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            pairs: Iterable[tuple[ast.expr, ast.expr]] = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
            for name, value in pairs:
                if isinstance(name, ast.Name) and name.id.isupper() and is_number(value):
                    yield name.id


def is_number(value: ast.expr) -> bool:
    """Whether an expression has numbers, and otherwise only names in capitals."""
    numbers = False
    for node in ast.walk(value):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                return False
            numbers = True
        elif isinstance(node, ast.Name):
            if not node.id.isupper():
                return False
        elif not isinstance(node, ARITHMETIC):
            return False
    return numbers


ARITHMETIC = (
    *(ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict),
)


def uses_of_any(tree: ast.AST) -> int:
    """Return how often the type `Any` is named or imported, prose left out."""
    nodes = list(ast.walk(tree))
    imported = sum(isinstance(node, ast.alias) and node.name == "Any" for node in nodes)
    return imported + sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)


def asks_for_the_scheduler(tree: ast.AST) -> bool:
    """Whether code compares with a function of dask's schedulers, or with a class of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            compared = [ast.unparse(each) for each in node.comparators]
            if any(each.endswith(GETS) for each in compared):
                return True
        is_check = isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
        if is_check and ast.unparse(node.args[1]).endswith("Scheduler"):  # type: ignore[attr-defined]
            return True
    return False


def docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """Yield every string that is a statement: docstrings, also of fields."""
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


def pages_of(root: Path) -> Iterator[str]:
    """Yield the Markdown of the repository: README, guides, and the cells of notebooks."""
    for path in sorted((*root.glob("*.md"), *root.glob("docs/**/*.md"))):
        yield path.read_text()
    for path in sorted(root.glob("docs/**/*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def prose_of_page(text: str) -> list[str]:
    """Return the words of a page, without code and addresses."""
    for code in (r"^(```+).*?^\1", r"`[^`]*`", r"\]\([^)]*\)", r"<[^>]*>"):
        text = re.sub(code, " ", text, flags=re.M | re.S)
    return [word.lower() for word in re.findall(r"[A-Za-z]+", text)]


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
    """Return the rooms that the series of `median` is passed to, and the returns to one of them.

    The series is the object given by the caller, and later the one made of it. It is passed to a
    room by an argument of a function (its own methods do not count); it returns to a room that
    waits for the result of another room.
    """
    import numpy as np

    import daskstats as stats

    given = list(np.arange(60, dtype="u2").reshape(10, 2, 3))
    inside = str(PACKAGE) + "/"
    passed, returns, stack = set(), 0, [""]

    def note(frame, event: str, argument: object) -> None:
        nonlocal returns
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(inside):
            return
        if event == "return":
            stack.pop()
            return
        room = path.removeprefix(inside).split("/")[0].removesuffix(".py")
        count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        names = [name for name in frame.f_code.co_varnames[:count] if name not in ("self", "cls")]
        values = [frame.f_locals.get(name) for name in names]
        if any(value is given or hasattr(value, "frames_without_data") for value in values):
            returns += room != stack[-1] and room in stack
            passed.add(room)
        stack.append(room)

    profile: Callable = sys.setprofile
    profile(note)
    try:
        stats.median(given)
    finally:
        profile(None)
    return len(passed), returns


def main() -> int:
    """Print the figures."""
    every = figures()
    for figure in every:
        print(figure)
    return sum(not figure.kept for figure in every)


if __name__ == "__main__":
    sys.exit(main())
