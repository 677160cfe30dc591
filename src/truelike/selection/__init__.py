"""Scores of synthetic images, and the decision which of them train."""
