"""States of running reductions on disk."""
