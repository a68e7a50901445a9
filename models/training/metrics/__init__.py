"""How good a network is: agreement with targets, and how the fusion behaves."""
