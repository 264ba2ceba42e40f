"""The instructor's side: releasing exercises from their solutions."""
