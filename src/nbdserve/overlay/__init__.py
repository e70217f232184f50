"""What copy-on-write is made of: which clusters were written, where they lie, who writes them."""
