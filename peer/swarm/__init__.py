"""A pipeline's work between two rounds: microbatches through stages, and each stage's gradients for its round."""
