"""Compiled code that processes of tests use, loaded before they are forked: see `forking`.

No call of dask is made here: a process with threads should not be forked.
"""

import os
from pathlib import Path

import numpy as np

from daskstats.statistics import as_statistic
from tests.turns import PLACE, compile_in_turn

if PLACE in os.environ:
    compile_in_turn(Path(os.environ[PLACE]))

for name in ("average", "max", "median"):
    statistic = as_statistic(name)
    state = statistic.chunk([[np.zeros((2, 3, 4), "u2")]], 0)
    image = np.zeros((3, 4), statistic.image_dtype(np.dtype("u2"), None))
    statistic.finalize(state, image)
