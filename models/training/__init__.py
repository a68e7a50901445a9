"""Trains, converts, quantizes and measures the models of affectd. README.md lists the scripts and the order to run them."""
