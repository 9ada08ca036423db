"""Shard jobs on AWS Batch."""
