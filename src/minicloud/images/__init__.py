"""Images looked at where they lie, on web servers and on this machine."""
