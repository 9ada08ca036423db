"""The domain: what a submission is, how it is split, checked, merged and scored. No I/O, no clock, no Prefect."""
