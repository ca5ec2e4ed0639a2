"""Precision and speed, by one protocol for every method."""
