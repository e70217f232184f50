"""One ssh connection a node: reaching it, knowing it, logging in, and what goes through it."""
