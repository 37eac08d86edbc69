"""A run behind HTTP: images in, classes out, and a page to try it."""
