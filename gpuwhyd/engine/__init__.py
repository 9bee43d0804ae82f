"""Snapshot -> events and explanations. Pure: time arrives in the snapshot, nothing is read or written.

Read it in this order: `settings`, `fan_level` (how loud against rest), `phases` and `spikes` (when a spike opens and
ends), `idle_floor`, `ledger` and `heat` (who put how much heat there), `causes` (what the answer is), `evidence` and
`explain` (from what is known of a card to its answer), `sentences` and `words` (how it is said), `telling` and `ended`
(when it is told anew, and at the end), `rules` (alerts), `known` and `card` (all of one card), `engine` (all cards).
"""
