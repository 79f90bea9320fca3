"""A user's own data: annotations in three formats over a folder of videos, what is wrong with them, cached frames."""
