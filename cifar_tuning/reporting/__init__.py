"""Reports of sweeps: tables, comparisons, pictures and pages, made of plain data."""
