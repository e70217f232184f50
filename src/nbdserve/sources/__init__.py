"""Sources: the devices at the bottom of a chain."""
