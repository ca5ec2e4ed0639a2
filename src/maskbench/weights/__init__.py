"""Checkpoints that others published, under our names."""
