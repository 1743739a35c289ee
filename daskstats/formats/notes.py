"""Notes on images: how they were made, for the formats that have room for text.

A writer gets them as a mapping of texts, which is empty where the user wants none::

    {"program": "daskstats", "statistic": "median", "frames": "0:100", ...}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from types import MappingProxyType

from .choosing import MOST_LISTED

Text = str | tuple[str, ...]
"""one text, or one for each source or image"""
Facts = Mapping[str, Text]
"""notes as a writer gets them"""
NONE: Facts = MappingProxyType({})


def now() -> str:
    """Return the time in ISO 8601, with its offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass(frozen=True)
class Notes:
    """The notes on all images of one computation; the date is that of writing.

    Examples
    --------
    >>> notes = Notes({"max": {}, "percentile_95": {"parameters": "pctl=95"}}, {"frames": "0:9"})
    >>> notes.of("percentile_95")["parameters"], notes.of("max")["frames"]
    ('pctl=95', '0:9')
    """

    images: Mapping[str, Facts]
    """of each image, under its name"""
    common: Facts
    """of all of them"""

    def of(self, name: str) -> Facts:
        """Return the notes on one image."""
        return self._headed(self.images[name])

    def of_all(self) -> Facts:
        """Return the notes on all images that one file holds."""
        names, facts = tuple(self.images), tuple(self.images.values())
        if len(names) == 1:
            return self.of(*names)
        keys = dict.fromkeys(key for each in facts for key in each)
        every = {key: tuple(_line(each.get(key, "")) for each in facts) for key in keys}
        return self._headed({"images": names, **every})

    def _headed(self, facts: Facts) -> Facts:
        program = {"program": "daskstats", "version": version("daskstats"), "date": now()}
        return {**program, **facts, **self.common}


def lines(facts: Facts) -> dict[str, str]:
    """Return notes as lines of ASCII, for headers of keys and values.

    >>> lines({"statistic": "max", "sources": ("a.npy, frames 0:9", "b;{\\u00fc}.npy, frames 0:9")})
    {'statistic': 'max', 'sources': 'a.npy, frames 0:9 | b;{\\\\xfc}.npy, frames 0:9'}
    """
    return {key: _ascii(_line(_shortened(value))) for key, value in facts.items()}


def as_json(facts: Facts) -> str:
    """Return notes as JSON in ASCII, a key in each line."""
    return json.dumps({key: _shortened(value) for key, value in facts.items()}, indent=1)


def _shortened(value: Text) -> Text:
    """Return the first and last of many texts, and their number.

    Programs load the whole header of a TIFF or EDF file to show the image.
    """
    half = MOST_LISTED
    if isinstance(value, str) or len(value) <= 2 * half:
        return value
    return *value[:half], f"... ({len(value)} in all)", *value[-half:]


def _line(value: Text) -> str:
    return value if isinstance(value, str) else " | ".join(value)


def _ascii(text: str) -> str:
    """Return a text with escapes for all but printable ASCII."""
    return text.encode("unicode_escape").decode("ascii")
