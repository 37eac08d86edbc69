"""Will it learn, and if not, why: measured on any network, with words for what was found."""
