"""The server: listeners, connections and exports on top of the sans-I/O codec."""
