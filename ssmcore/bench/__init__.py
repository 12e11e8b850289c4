"""Figures of speed: times taken in turn, peak memory, and the machine they belong to."""
