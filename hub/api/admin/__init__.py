"""The administrative API: what the portal can do, for programs."""
