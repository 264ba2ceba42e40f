"""Part 2, the macroscopic view: what has the network learned, whatever the input?"""
