"""The reconciler: compares what EvalAI, the ledger, Prefect and the clusters say, decides, acts and explains."""
