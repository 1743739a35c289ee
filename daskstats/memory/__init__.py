"""Memory: how much there is, reservations of calls, and a pool of buffers."""
