"""Pure arithmetic, apart from all I/O: the time and the randomness are arguments."""
