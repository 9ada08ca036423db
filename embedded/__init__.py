"""The embedded stack: everything that production has, on one machine, each part behind its real interface."""
