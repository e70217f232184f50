"""What a tool or a daemon printed, turned into values: pure."""
