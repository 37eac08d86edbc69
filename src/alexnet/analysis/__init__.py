"""What a trained network has learnt: kernels, features, neighbours, confidence, evidence."""
