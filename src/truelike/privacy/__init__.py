"""Shadows of the pipeline, by which an attacker learns how it answers for images that it was or was
not trained on.
"""
