"""Networks as data: a specification, and the module built from it."""
