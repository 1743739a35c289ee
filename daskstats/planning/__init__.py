"""Block sizes, reads and memory of a call: arithmetic on integers."""
