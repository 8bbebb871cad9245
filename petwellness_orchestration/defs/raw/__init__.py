"""Lake into `raw`, and the reconciliation of both."""
