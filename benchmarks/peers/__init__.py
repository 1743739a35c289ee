"""Peers by name, one file for each library. A new one is a file, and a module of the list here."""

from . import (
    astropy_,
    bottleneck_,
    ccdproc_,
    dask_,
    daskstats_,
    hexrd,
    hyperspy_,
    libertem_,
    limits,
    numbagg_,
    numpy_,
    pyfai,
    xarray_,
)
from .base import Peer

# In the order in which they take turns.
MODULES = (
    daskstats_,
    numpy_,
    hexrd,
    dask_,
    xarray_,
    numbagg_,
    bottleneck_,
    libertem_,
    pyfai,
    hyperspy_,
    ccdproc_,
    limits,
)

PEERS: dict[str, Peer] = {peer.name: peer for module in MODULES for peer in module.PEERS}

# Functions that return the function computing a sigma-clipped mean.
CLIPPED_MEANS = {
    "astropy": astropy_.clipped_mean,
    "ccdproc (one round)": ccdproc_.clipped_mean,
}
