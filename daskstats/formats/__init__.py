"""File formats: one module each reads series and images, and writes images."""
