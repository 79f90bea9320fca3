"""What ViSum costs and what it gains, measured on this machine: `python -m benchmarks`, or `make bench`.

Every figure is one way of doing something beside another way of doing the same, in one run, taking turns.
"""
