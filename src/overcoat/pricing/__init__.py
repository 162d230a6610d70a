"""What tokens cost: rates, and where they come from."""
