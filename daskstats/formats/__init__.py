"""File formats: a module for each reads series and images, and writes images."""
