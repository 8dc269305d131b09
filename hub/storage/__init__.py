"""Tables, repositories and migrations (SQLAlchemy Core, async)."""
