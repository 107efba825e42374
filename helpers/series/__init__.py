"""What `make` calls: the notebooks run in order, the report page, the outputs that are shown."""
