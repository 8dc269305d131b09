"""The administrative API: everything that the portal can do, for programs."""
