"""Trials as processes: identity, status, engines."""
