"""Prefect blocks: everything outside that the flows talk to; all of them together are `blocks.collection`.

Imports nothing, so that who needs only EvalAI's client does not wait for Prefect.
"""
