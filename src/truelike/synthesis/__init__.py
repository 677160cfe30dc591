"""What to make, how to make it, and how to keep what was made."""
