"""What most users hold in their hands."""
