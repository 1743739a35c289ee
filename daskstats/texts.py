"""How errors show values, and how people type slices."""

from math import log10

# The longest text of a value in an error message, in characters.
MOST_TEXT = 100


def shown(value: object) -> str:
    """Return a value as one short line, an integer of many digits by its size.

    >>> import numpy as np
    >>> shown(2.5), shown(-(10**400)), shown(np.float32(3))
    ('2.5', 'an integer of about -10^400', 'np.float32(3.0)')
    """
    if isinstance(value, int) and value.bit_length() * log10(2) > MOST_TEXT:
        sign = "-" if value < 0 else ""
        return f"an integer of about {sign}10^{round(value.bit_length() * log10(2))}"
    try:
        text = repr(value)
    except ValueError:
        return f"a {type(value).__name__} of too many digits"
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def frame_slice(text: str) -> slice:
    """Return the slice for START:STOP[:STEP].

    >>> frame_slice("10:200:5"), frame_slice("-20:")
    (slice(10, 200, 5), slice(-20, None, None))
    """
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) not in (2, 3) or parts[2:] == [0]:
        raise ValueError(text)
    return slice(*parts)
