"""What `make` calls: running the notebooks, the report page, publishing their outputs."""
