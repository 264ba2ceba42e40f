"""The teacher's side: releasing exercises from their solutions, and grading what students hand in."""
