"""A file per primitive."""
