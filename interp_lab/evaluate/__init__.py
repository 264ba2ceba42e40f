"""Part 3: can the explanation be trusted? Attributions evaluated against known evidence, and against the model."""
