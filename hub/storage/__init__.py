"""What the Hub keeps, in SQLite or PostgreSQL; see :mod:`hub.storage.repositories`."""
