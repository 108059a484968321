"""Programs that keep the house: checks, generators, the demo."""
