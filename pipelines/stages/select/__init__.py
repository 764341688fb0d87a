"""A policy keeps or drops clips, and of duplicates the best copy stays."""
