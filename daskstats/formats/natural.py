"""The order of names for people: scan_2 before scan_10."""

import re


def natural(name: object) -> tuple[str | int, ...]:
    """Return a key that sorts the numbers in names by their values.

    >>> sorted(["scan_10", "scan_2", "scan_02b"], key=natural)
    ['scan_2', 'scan_02b', 'scan_10']
    """
    parts = re.split(r"(\d+)", str(name))
    return (*(int(part) if index % 2 else part for index, part in enumerate(parts)), str(name))
