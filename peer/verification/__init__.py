"""Members check each other's work after a round; what is proof, and of what, stands in `protocols.verification`."""
