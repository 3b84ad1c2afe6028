"""The demo: its steps, and what is made of their results."""
