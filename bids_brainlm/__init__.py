"""BIDS App that turns fMRI into language."""

__version__ = "0.1.0"
