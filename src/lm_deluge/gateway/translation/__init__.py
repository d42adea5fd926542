"""What a request of one wire API means for a provider of another."""
