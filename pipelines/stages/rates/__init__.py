"""What each segment of packed clips costs and loses at each rate."""
