"""What the paper, and those who repeat it, claim; each measured by one experiment."""
