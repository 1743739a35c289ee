"""Processes of tests are forked, where possible, from one that has imported their packages.

Each would take two seconds of a core to import them again.
"""

import multiprocessing


def start_method() -> str:
    """Return the method to start processes."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["distributed", "zarr", "daskstats.api", "daskstats.kernels"]
    )
    return "forkserver"
