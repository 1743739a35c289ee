"""Results of a benchmark: the machine, the versions and the tables, as Markdown and as JSON."""

import contextlib
import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil

MACHINE_PACKAGES = ("numpy", "numba", "dask", "distributed", "zarr", "h5py")


class Report:
    """Tables of one run, printed as they come, and saved at the end.

    Parameters
    ----------
    facts : sequence of str
        Further conditions of the run, such as the size of the series.
    packages : iterable of str
        Packages whose versions matter.
    """

    def __init__(self, facts: Sequence[str], packages: Iterable[str] = MACHINE_PACKAGES) -> None:
        self.facts = [*machine(packages), *facts]
        self.tables: list[dict[str, Any]] = []
        print("\n".join(f"- {fact}" for fact in self.facts), flush=True)

    def add(self, title: str | None, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table, and print it."""
        found = {"title": title, "header": list(header), "rows": [list(row) for row in rows]}
        self.tables.append(found)
        print(f"\n{markdown(found)}", flush=True)

    def save(self, path: str | None) -> None:
        """Write JSON; the title and the remarks of a file that is there are kept."""
        if path is None:
            return
        file = Path(path)
        kept = json.loads(file.read_text()) if file.exists() else {}
        write(
            file,
            {
                "title": kept.get("title", file.stem),
                "remarks": kept.get("remarks", []),
                "facts": self.facts,
                "tables": self.tables,
            },
        )


def write(file: Path, result: dict[str, Any]) -> None:
    """Write a result with one row of a table to a line, so that changes can be read."""
    text = json.dumps(result, indent=1, default=float)
    for each in result["tables"]:
        for row in [each["header"], *each["rows"]]:
            if row:
                spread = json.dumps(row, indent=1, default=float).replace("\n", "\n   ")
                deeper = json.dumps(row, indent=1, default=float).replace("\n", "\n    ")
                flat = json.dumps(row, default=float)
                text = text.replace(deeper, flat).replace(spread, flat)
    file.write_text(text + "\n")


def markdown(found: dict[str, Any]) -> str:
    """Return a table with its title."""
    title = f"### {found['title']}\n\n" if found["title"] else ""
    return title + table(found["header"], found["rows"])


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table with padded columns."""
    cells = [list(header)] + [[text(cell) for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def text(value: Any) -> str:
    """Return a cell: three significant digits of a float, "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def mebibytes(nbytes: int | None) -> int | None:
    """Return a size in MiB."""
    return None if nbytes is None else round(nbytes / (1 << 20))


def machine(packages: Iterable[str]) -> list[str]:
    """Return the conditions of every figure: machine, date, versions, command."""
    versions = [f"{name} {version(name)}" for name in packages if version(name)]
    total = psutil.virtual_memory().total / (1 << 30)
    script, *arguments = sys.argv
    command = " ".join(["python", f"benchmarks/{Path(script).name}", *arguments])
    return [
        f"Machine: {processor()}, {cores()} cores, {total:.0f} GiB, {platform.system()}",
        f"Date: {datetime.date.today().isoformat()}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
        f"Command: `{command}`",
    ]


def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return the model of the processor, with the widest vectors that numpy sees."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = found[0] if found else name
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return f"{name} (numpy sees {found[-1]})" if found else name


def cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
