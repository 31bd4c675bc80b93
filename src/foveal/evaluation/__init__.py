"""Quality and cost over labelled data."""
