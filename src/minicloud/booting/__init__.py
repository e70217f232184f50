"""A guest's making: what was asked for, its steps and their undoing, and waiting until it is up."""
