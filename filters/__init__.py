"""Pure measures of video: arrays and numbers in, numbers out."""
