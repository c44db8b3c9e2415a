"""Inputs that several nodes share, in one place with their defaults and tooltips."""
