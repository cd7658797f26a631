"""Runs the migrations on the connection that `sbs_server.adapters.database` hands over."""

from __future__ import annotations

from alembic import context

from sbs_server.adapters.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
with context.begin_transaction():
    context.run_migrations()
