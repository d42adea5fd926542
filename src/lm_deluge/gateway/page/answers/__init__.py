"""The answers of the page: started, run and stored."""
