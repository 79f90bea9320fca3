"""What the service promises under faults, proven on its real processes."""
