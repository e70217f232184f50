"""virt-customize over a guest's export: what it is told, where it runs, what came of it."""
