"""Keys, budgets and spend in a database: SQLite without set-up, or any other that SQLAlchemy knows."""
