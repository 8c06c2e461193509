"""What those who call may send: how much, and which documents."""
