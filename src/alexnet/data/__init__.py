"""Raw images to reproducible uint8 batches."""
