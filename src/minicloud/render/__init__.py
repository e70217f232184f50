"""Views and documents → a terminal, a pipe, JSON; and the progress of a long step."""
