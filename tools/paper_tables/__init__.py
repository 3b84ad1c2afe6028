"""Reproduction of the papers' tables: plans, runs and reports."""

from .plan import Plan, Planner
from .tables import TABLES, Cell, Table, find_table
from .training import Run

__all__ = [
    'TABLES', 'Cell', 'Plan', 'Planner', 'Run', 'Table', 'find_table'
]
