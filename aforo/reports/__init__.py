"""Reports: what came in, what it cost, and what of it recurs."""
