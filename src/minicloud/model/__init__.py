"""The values minicloud is about: nodes, guests, templates, outcomes. Pure: no I/O, frozen."""
