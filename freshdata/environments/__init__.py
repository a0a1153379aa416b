"""A developer's own Silver and Gold beside production's: plan, compare, promote, roll back."""
