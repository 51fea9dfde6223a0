"""The schema's history, one step a file, each a page of plain SQL run by Alembic."""
