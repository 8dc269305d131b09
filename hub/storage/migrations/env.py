"""Alembic's entry: runs the migrations on the connection that :mod:`hub.storage.migrate` hands over."""

from alembic import context

from hub.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by building it anew
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
