"""Figures of summaries against references, by the libraries that define them, each with a bootstrap interval."""
