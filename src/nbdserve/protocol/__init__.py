"""The NBD protocol, sans-I/O: bytes in, events out; replies are encoders."""
