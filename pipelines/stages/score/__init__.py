"""Models look at representative frames."""
