"""The life of a submission: its ledger entry, its stages, who may take it over, how it ends."""
