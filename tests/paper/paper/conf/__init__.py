"""Where `hydra.searchpath=[pkg://paper.conf]` looks: without this file Hydra takes the folder for no package."""
