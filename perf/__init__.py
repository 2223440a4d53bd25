"""The benchmark harness: scenarios, peers and the report."""
