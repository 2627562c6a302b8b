"""What carries a policy: it samples, computes losses and steps, wherever the weights are."""
