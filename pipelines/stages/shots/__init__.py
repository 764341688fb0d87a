"""From signals to clips."""
