"""Processes of tests are forked, where possible, from one that has imported their packages.

Each would take two seconds of a core to import them again, and half a second to load compiled code.
"""

import multiprocessing


def start_method() -> str:
    """Return the method to start processes."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # That of the tests is found where pytest runs at the root of the project.
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["distributed", "zarr", "daskstats.api", "daskstats.kernels", "tests.preloaded"]
    )
    return "forkserver"
