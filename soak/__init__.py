"""A soak: many conversations over a service on which faults are inflicted, each answer checked."""
