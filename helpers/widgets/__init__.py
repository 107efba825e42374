"""Forms and views for the notebooks. They show and change what the other modules own, and own nothing."""
