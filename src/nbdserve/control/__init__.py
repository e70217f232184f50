"""The control protocol, which `nbdctl` speaks to a running daemon: bytes in, values out; no I/O."""
