"""The `peer` command."""
