"""Subcommands, one in each file."""
