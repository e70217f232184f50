"""Guests that change their node: what is checked first, and where they go. Pure: no I/O."""
