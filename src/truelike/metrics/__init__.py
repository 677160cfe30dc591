"""Small pure functions on arrays."""
