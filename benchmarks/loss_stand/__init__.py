"""The ways in which users of Freqtrade lose money, replayed: plain Freqtrade beside ours, on equal exchanges."""
