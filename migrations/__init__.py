"""Migrations: PostgreSQL by alembic, ClickHouse by the numbered files in `clickhouse/`."""
