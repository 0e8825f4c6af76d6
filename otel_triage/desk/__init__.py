"""What a team knows: which failures were counted, and what was decided on them."""
