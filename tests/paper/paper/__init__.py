"""Cores, a method of a paper that nobody has written."""
