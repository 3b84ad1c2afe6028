"""The papers' tables, run again: what to run, running it, what came out."""
