"""Shard Jobs as processes of this machine: the embedded default, with stand-ins for simulator and agent."""
