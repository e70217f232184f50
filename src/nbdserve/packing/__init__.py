"""Compressing an image anew, in blocks that can be read one by one: what `nbdctl pack` runs."""
