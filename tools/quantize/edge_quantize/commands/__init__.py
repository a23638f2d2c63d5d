"""Subcommands of `edge-quantize`: arguments in, a printed result out; nothing of substance imports them."""
