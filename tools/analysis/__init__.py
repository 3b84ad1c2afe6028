"""Tools that draw what runs recorded, and what their models see."""
