"""How large a block is, how often the series is read, and what it costs: integers only."""
