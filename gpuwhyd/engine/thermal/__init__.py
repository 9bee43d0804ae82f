"""The thermal side of a card, learned: how it warms and cools, how its fan answers, and what follows from that."""
