"""Networks and losses in plain torch: no Lightning, no data."""
