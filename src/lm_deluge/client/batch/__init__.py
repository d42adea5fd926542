"""The batch methods of the client: many prompts at once."""
