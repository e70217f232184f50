"""What the `xz` layer stands on: blocks fetched, decoded, kept and spilled for all readers."""
