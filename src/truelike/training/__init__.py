"""Phases, arms, the loop and its losses."""
