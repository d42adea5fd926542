"""What the user says; knows no provider."""
