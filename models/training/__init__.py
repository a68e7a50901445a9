"""Trains, converts, quantizes and measures the models of affectd. README.md says what is where and in which order to run it."""
