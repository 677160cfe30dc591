"""Captions of real images, and their rewrites."""
