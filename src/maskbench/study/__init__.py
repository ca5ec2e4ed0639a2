"""From many runs to one answer."""
