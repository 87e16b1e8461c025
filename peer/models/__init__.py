"""The models that a manifest can name, and how the swarm sees them: one flat vector."""
