"""The output of the commands: text, tables, Markdown, the terminal."""
