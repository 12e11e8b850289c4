"""Benchmarks of ssmcore beside what people use today: ``python -m benchmarks --help``.

Not shipped, and nothing in ssmcore imports it. docs/benchmarks.md says how figures are taken.
"""
