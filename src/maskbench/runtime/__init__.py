"""What every verb needs around a method: composition, callbacks, run folders, overlays, the launcher."""
