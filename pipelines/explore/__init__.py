"""For analysts: a ledger that explains itself, and questions to it."""
