"""Image series: the protocol, and the series that are in memory."""
