"""ACTION: the ladder from a signal to what is done about it, every decision recorded."""
