"""`edge demo`: the whole path on real faces, with a broker of its own."""
