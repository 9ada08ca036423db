"""A simulator-agent pair: the protocol on its shared volume, its exit codes, and what follows when a start ends."""
