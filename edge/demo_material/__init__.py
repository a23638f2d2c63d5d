"""Two public-domain portraits for `edge demo`; where they come from: README.md beside this file."""
