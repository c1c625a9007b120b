"""The label store, schema 1: docs/store.md says what is on disk, and why it survives kills and flipped bits."""
