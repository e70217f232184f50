"""From what the operator wrote to an `Inventory`: TOML, executable templates, an ssh_config."""
