"""What the commands show: text, tables, Markdown, the terminal."""
