"""Which clips resemble which, found once for all policies and kept in the table `matches`."""
