"""The only drivers: PostgreSQL, ClickHouse and Redis, behind the scope of one tenant."""
