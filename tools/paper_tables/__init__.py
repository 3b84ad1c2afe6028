"""Reproduction of the papers' tables: plans, runs and reports."""
