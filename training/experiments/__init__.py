"""The method's experiments: each a table of arms, domains and seeds, run by run resumable, told in rows and plots."""
