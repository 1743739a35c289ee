"""Which tasks there are. Everything that touches dask's graph internals is here."""
