"""What a customer may do right now: entitlement checks, units that are held, and restraints."""
