"""Settings that belong to a data set's scale, as its statistics tell them: the same rules for every method."""
