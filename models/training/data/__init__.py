"""Reads the data sets, in the formats that DATA.md describes, and cuts training examples from them."""
