"""Accuracy of the arms, with intervals, and the verdict."""
