"""Site figures from the counts of many kiosks."""
