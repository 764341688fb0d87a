"""What each trainer reads: a file for those that read alike."""
