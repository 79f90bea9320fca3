"""The gateway: HTTP in front of the queue. Loads no model and no torch."""
