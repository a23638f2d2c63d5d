"""The Edge TPU compiler: what it will do (`check`), what it did (`inspect`), and how it is called (`compile`)."""
