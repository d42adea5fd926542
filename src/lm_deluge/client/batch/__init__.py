"""Many prompts at once: the batch methods of the client."""
