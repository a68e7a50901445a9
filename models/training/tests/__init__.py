"""Tests of the training code on small data that they make themselves."""
