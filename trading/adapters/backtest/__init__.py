"""Freqtrade's own backtesting engine, without network, behind the same risk manager as a live bot."""
