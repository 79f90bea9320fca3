"""The command line of ViSum, and the all-in-one process that `visum serve` starts."""
