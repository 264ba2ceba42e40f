"""What the methods that go back through a network stand on; no method itself."""
