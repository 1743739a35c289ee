"""``python -m daskstats`` is the command line."""

from .cli.program import main

# The workers of the multiprocessing scheduler import this file too, under another name.
if __name__ == "__main__":
    main()
