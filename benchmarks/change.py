"""The cost of a change: ``python benchmarks/change.py before.json after.json``.

Both are results of ``compare.py --json``, of one machine, measured one after the other.
"""

import json
import sys
from pathlib import Path
from typing import Any

from report import table

HEADER = ["series", "statistic", "GB/s before", "after", "ratio", "MiB before", "after"]


def speeds(path: str) -> dict[tuple[str, str], list[Any]]:
    """Return the speed and the peak memory of daskstats for each series and statistic."""
    first = json.loads(Path(path).read_text())["tables"][0]
    speed, peak = map(first["header"].index, ("GB/s", "peak MiB"))
    return {(row[0], row[1]): [row[speed], row[peak]] for row in first["rows"] if is_ours(row[2])}


def is_ours(peer: str) -> bool:
    return peer.startswith("daskstats (")


def changes(before: str, after: str) -> list[list[Any]]:
    """Return a row for each statistic that both have."""
    old, new = speeds(before), speeds(after)
    rows = []
    for key in old.keys() & new.keys():
        (speed, peak), (speed_now, peak_now) = old[key], new[key]
        rows.append([*key, speed, speed_now, speed_now / speed, peak, peak_now])
    return sorted(rows, key=lambda row: row[4])


if __name__ == "__main__":
    print(table(HEADER, changes(*sys.argv[1:])))
