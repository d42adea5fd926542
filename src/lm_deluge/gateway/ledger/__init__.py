"""Keys, budgets and spend in a database: SQLite without set-up, or PostgreSQL by its URL."""
