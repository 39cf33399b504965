"""Video: probe, plan, read, encode, assemble."""
