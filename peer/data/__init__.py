"""The data sets that a manifest can name."""
