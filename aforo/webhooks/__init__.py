"""TELLING: endpoints of a tenant that are told, signed and in order, of what has happened."""
