"""Colour: what the numbers of a frame mean, and the one place that turns it into RGB."""
