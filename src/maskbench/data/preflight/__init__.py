"""A data set looked through before anything is trained on it: all that is wrong with it, not the first thing alone."""
