"""The rooms behind `Cache`: what steers it, what it keeps, who waits for whom, and how its store is doing."""
