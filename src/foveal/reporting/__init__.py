"""Results for people: text, pictures, charts."""
