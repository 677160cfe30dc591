"""Image sets for others: load, export, trace, repair."""
