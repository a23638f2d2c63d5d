"""Training on a GPU machine in plain PyTorch; weights come home under neutral names."""
