"""How other code bases name and arrange weights: one file each."""
