"""A submission's report: one HTML page for its team, and one for the operators (docs/operations.md, "Reports")."""
