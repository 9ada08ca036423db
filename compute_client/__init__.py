"""Any Python function as scalable asynchronous compute: what its users import. `docs/compute-client.md` shows how.

Imports nothing, so that the process of a user's function starts without waiting for boto3.
"""
