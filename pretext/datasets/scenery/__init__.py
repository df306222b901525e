"""The program that draws the embedded data set `scenes`."""
