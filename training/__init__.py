"""Training: the demo world, the recipes that made the shipped weights, evaluation."""
