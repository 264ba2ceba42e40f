"""Surrogates: a network summarised by a model that can be read.

A surrogate is fitted to what the *network* says about inputs, never to their true labels, and is as good as its
:func:`~interp_lab.fidelity`. Linear models and trees come from :mod:`interp_lab.antehoc`; the graph is the network itself
with most of its channels switched off; the local surrogate speaks of one image alone.
"""
