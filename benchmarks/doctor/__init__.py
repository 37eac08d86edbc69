"""Does the doctor name the right cause first? Faults, the matrix they are tried in, its report."""
