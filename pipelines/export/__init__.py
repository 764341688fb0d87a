"""The shards of a selection as other people's trainers read them: cut to their rules, every clip accounted for."""
