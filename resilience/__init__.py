"""Attacks on the running service, and what it promised about them."""
