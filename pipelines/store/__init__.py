"""What the rest builds on: files by URI, the ledger, tars and shards, identity of clips."""
