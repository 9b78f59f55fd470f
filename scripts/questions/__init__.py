"""Benchmarks: fetched or read from the user's own list, and their controls."""
