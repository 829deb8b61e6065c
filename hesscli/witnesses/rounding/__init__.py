"""What rounding leaves uncertain of each witness's numbers."""
