"""Critical points: finding them, and the verdict on one with its evidence."""
