"""Training on a GPU machine that is lent for minutes: a small pack goes there, weights come back."""
