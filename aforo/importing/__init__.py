"""`aforo import`: usage events from a file, through the API, so that it works from anywhere."""
