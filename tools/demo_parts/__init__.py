"""Parts of the demo: steps, summary and pictures."""
