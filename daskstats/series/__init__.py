"""What an image series is, and the series that are in memory."""
