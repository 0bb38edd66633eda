"""Carries out a plan in order. Knows the ports, never an HTTP library or a database."""
