"""The order of names for people: scan_2 before scan_10."""

import re

Key = tuple[tuple[str | int, ...], str]


def natural(name: object) -> Key:
    """Return a key that sorts the numbers in names by their values.

    >>> sorted(["scan_10", "scan_2", "scan_02b", "scan_"], key=natural)
    ['scan_', 'scan_2', 'scan_02b', 'scan_10']
    """
    parts = re.split(r"(\d+)", str(name))
    # The whole name is apart: after fewer parts it would be compared with a number.
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), str(name)
